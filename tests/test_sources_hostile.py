"""Whatever a file holds, opening it ends soon, in little memory, without running its code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("hostile_files.py")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")


def run(folder: Path, *arguments: str) -> str:
    # What AddressSanitizer keeps of freed memory is not what opening takes.
    asan = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "quarantine_size_mb=8"]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAM), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parent.parent), "ASAN_OPTIONS": asan},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_files_that_are_damaged_at_random(tmp_path):
    assert run(tmp_path, "mutate", "0", "600") == ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_many_files_that_are_damaged_at_random(tmp_path, seed):
    assert run(tmp_path, "mutate", str(seed), "3000") == ""


def test_files_that_are_made_to_cost_much(tmp_path):
    assert run(tmp_path, "bombs") == ""
