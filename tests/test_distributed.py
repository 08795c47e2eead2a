"""Verbs over several processes: what a sharded model gives is what the whole gives, or an error on all ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def program() -> Iterator[subprocess.Popen[str]]:
    """The process that the ranks of all cases are forked from."""
    path = str(Path(__file__).parent / "distributed_checks.py")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("case", CASES)
def test_on_several_ranks(case: str, program: subprocess.Popen[str], tmp_path: Path) -> None:
    assert program.stdin is not None
    assert program.stdout is not None
    print(case, tmp_path, file=program.stdin, flush=True)
    answer = program.stdout.readline()
    assert answer, "the program that forks the ranks has ended"
    logs = [(tmp_path / f"{rank}.log").read_text()[-1500:] for rank in range(CASES[case])]
    assert json.loads(answer) == [0] * CASES[case], "\n".join(
        f"rank {i}: {log}" for i, log in enumerate(logs)
    )
