"""Verbs over several processes: what a sharded model gives is what the whole gives, or an error on all ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="torch is built without gloo",
)

CASES = {
    "layouts_of_two": 2,
    "layouts_of_three": 3,
    "layouts_of_four": 4,
    "replicas": 4,
    "mistakes": 2,
    "collectives": 2,
    "training": 2,
    "files": 2,
    "stages": 2,
    "meta": 2,
}


@pytest.mark.parametrize("case", CASES)
def test_on_several_ranks(case: str, tmp_path: Path) -> None:
    program = str(Path(__file__).parent / "distributed_checks.py")
    world = CASES[case]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", program, case, str(rank), str(world), str(tmp_path)],
            env={"GLOO_SOCKET_IFNAME": "lo", **os.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        told = [process.communicate(timeout=300) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    ends = [process.returncode for process in ranks]
    assert ends == [0] * world, "\n".join(f"rank {i}: {err[-1500:]}" for i, (_, err) in enumerate(told))
    assert all(out.split()[-1] == "checked" for out, _ in told)
