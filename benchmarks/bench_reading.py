"""measure and fingerprint beside a loop that only reads the same bytes on as many threads.

``torch.sum`` moves by half from run to run; such a loop does not. Each instruction set is a process of its
own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pairing import Pair, keep, readable, versus
from reading import INSTRUCTION_SETS, Reader

import pyparam

JOBS = {"float32": 0.9, "bfloat16": 0.8, "float64": None, "wide float32": None, "fingerprint": 0.95}


def tensors_of(job: str, nbytes: int) -> list[torch.Tensor]:
    """In tensors of 64 MiB each."""
    values = torch.randn(1 << 22)
    if job == "wide float32":
        values = values * torch.exp2(torch.randint(-15, 16, values.shape))
    dtype = {"bfloat16": torch.bfloat16, "float64": torch.float64}.get(job, torch.float32)
    block = values.to(dtype)
    each = (1 << 26) // block.nbytes
    return [block.repeat(each) for _ in range(nbytes >> 26)]


def main(job: str, isa: str) -> None:
    """Runs in the process that is timed: prints both sides' seconds."""
    tensors = tensors_of(job, 1 << 30)
    table = pyparam.ParamTable([str(i) for i in range(len(tensors))], tensors)
    reader = Reader(tensors, torch.get_num_threads(), isa)
    words = sum(int(t.view(torch.int64).sum()) for t in tensors) % (1 << 64)
    assert reader() == words, "the loop reads something else"
    verb = pyparam.fingerprint if job == "fingerprint" else pyparam.measure
    pair = versus(None, lambda: verb(table), reader, rounds=7, floor=JOBS[job])
    print(json.dumps([pair.ours, pair.peer]))


@pytest.mark.parametrize("isa", ["avx512", "avx2"])
@pytest.mark.parametrize("job", list(JOBS))
def test_beside_a_loop_that_only_reads(job: str, isa: str) -> None:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    if {"avx512": "avx512bw", "avx2": "avx2"}[isa] not in flags:
        pytest.skip(f"the machine has no {isa}")
    here = Path(__file__).resolve().parent
    path = os.pathsep.join([str(here.parent), str(here), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYPARAM_ISA": isa, "PYTHONPATH": path}
    environment.pop("PYPARAM_FIGURES", None)
    command = [sys.executable, __file__, job, isa]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    ours, peer = json.loads(done.stdout.splitlines()[-1])
    keep(ours, peer)
    pair = Pair(ours, peer, JOBS[job])
    aim = "" if pair.floor is None else f" (floor {pair.floor:g}×)"
    print(f"\n{job}, {isa}: {readable(ours)} against {readable(peer)}: {pair.ratio:.3g}×{aim}")


if __name__ == "__main__":
    assert sys.argv[2] in INSTRUCTION_SETS
    main(*sys.argv[1:])
