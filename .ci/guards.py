"""Counts the instructions of the hot paths under callgrind, and compares with what was recorded.

Times on a shared machine move by half; instruction counts by less than a hundredth. A path that takes more
than its recorded count by ``TOLERANCE`` fails, one that takes less by as much is told, so that the record is
made anew: ``guards.py --record``. Counts depend on the interpreter, on PyTorch and on the compiler: without a
record for these nothing is compared, and that is said.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / ".ci" / "guards.json"
TOLERANCE = 0.05

# What a process tells callgrind that runs it.
CONTROL = """
#include <valgrind/callgrind.h>
extern "C" void start() { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
extern "C" void stop(const char* name) { CALLGRIND_DUMP_STATS_AT(name); CALLGRIND_STOP_INSTRUMENTATION; }
"""


def measured(control: str) -> None:
    """Runs in the process that callgrind counts: each path twice to warm up, once counted."""
    import gc

    import torch
    from torch import nn

    import pyparam

    torch.set_num_threads(1)
    told = ctypes.CDLL(control)
    model = nn.Sequential(
        *(
            nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.ModuleList(nn.Linear(8, 4) for _ in range(2)))
            for _ in range(300)
        )
    )
    # Of a sixth of it: a kernel that runs for 50 ms, as it may when it is counted, asks whether it is to go
    # on, and that counts too.
    table = pyparam.walk(model[:50])
    paths: dict[str, Callable[[], Any]] = {
        "walk": lambda: pyparam.walk(model),
        "named_parameters": lambda: list(pyparam.named_parameters(model)),
        "for over named_parameters": lambda: [name for name, _ in pyparam.named_parameters(model)],
        "named_modules": lambda: list(pyparam.named_modules(model)),
        "state_dict": lambda: pyparam.state_dict(model),
        "measure, tiny tensors": lambda: pyparam.measure(table),
        "total_norm, tiny tensors": lambda: pyparam.total_norm(table),
        "fingerprint, tiny tensors": lambda: pyparam.fingerprint(table).total,
        "flatten, tiny tensors": lambda: pyparam.flatten(table),
        "ties": lambda: pyparam.ties(model),
    }
    gc.disable()
    for name, path in paths.items():
        for _ in range(2):
            path()
        told.start()
        kept = path()
        told.stop(name.encode())
        del kept


def machine(compiler: str) -> str:
    """What the counts depend on."""
    import torch

    said = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout.splitlines()
    version = re.search(r"\d+\.\d+", said[0]) if said else None
    kind = "clang" if said and "clang" in said[0] else "gcc"
    return (
        f"{platform.machine()}, Python {'.'.join(platform.python_version_tuple()[:2])}, "
        f"torch {torch.__version__.partition('+')[0]}, {kind} {version[0] if version else '?'}"
    )


def counted(compiler: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        source, control = Path(folder, "control.cpp"), Path(folder, "control.so")
        source.write_text(CONTROL)
        subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(control)], check=True)
        command = [
            "valgrind",
            "--tool=callgrind",
            "--instr-atstart=no",
            f"--callgrind-out-file={folder}/out",
            sys.executable,
            __file__,
            "--counted",
            str(control),
        ]
        # One thread, and one order of what is hashed.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
        if done.returncode:
            sys.exit(f"guards: the counted process failed:\n{done.stderr[-3000:]}")
        counts: dict[str, int] = {}
        for path in Path(folder).glob("out.*"):
            text = path.read_text()
            name = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.M)
            total = re.search(r"^(?:summary|totals): (\d+)", text, re.M)
            if name and total:
                counts[name[1]] = int(total[1])
    return counts


def compare(counts: dict[str, int], recorded: dict[str, int]) -> list[str]:
    """Prints a row a path; gives those that take too many, or that are not there any more."""
    wrong = [f"{name} is recorded and was not counted" for name in recorded if name not in counts]
    for name, count in counts.items():
        if name not in recorded:
            print(f"  {name:28} {count:>12,}   not recorded")
            continue
        change = count / recorded[name] - 1
        print(f"  {name:28} {count:>12,}   {change:+.1%}")
        if change > TOLERANCE:
            wrong.append(f"{name} takes {change:.1%} more instructions than recorded")
        elif change < -TOLERANCE:
            print(f"  {name} takes {-change:.1%} less: record it with .ci/guards.py --record")
    return wrong


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--record", action="store_true", help="keep what is counted as the record")
    options.add_argument("--counted", metavar="LIBRARY", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.counted:
        measured(asked.counted)
        return
    compiler = os.environ.get("PYPARAM_CXX") or os.environ.get("CXX") or "c++"
    if shutil.which("valgrind") is None or not Path("/usr/include/valgrind/callgrind.h").is_file():
        print("guards: left out, because valgrind and its headers are not here.")
        return
    here = machine(compiler)
    records = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    counts = counted(compiler)
    if not counts:
        sys.exit("guards: nothing was counted")
    if asked.record:
        records[here] = counts
        RECORD.write_text(json.dumps(records, indent=2) + "\n")
        print(f"recorded for {here}")
        return
    if here not in records:
        print(f"guards: nothing is recorded for {here}, so nothing is compared:")
    wrong = compare(counts, records.get(here, {}))
    for line in wrong:
        print(f"guards: {line}", file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
