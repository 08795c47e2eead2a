"""Sharded models: against PyTorch on four processes, and what a verb costs on one rank of many."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pairing import keep, readable

WORLD = 4
PROGRAM = str(Path(__file__).parent / "distributed_ranks.py")

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="torch is built without gloo",
)


def started(job: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", PROGRAM, job, *words],
        env={"GLOO_SOCKET_IFNAME": "lo", **os.environ},
        stdout=subprocess.PIPE,
        text=True,
    )


def of_ranks(job: str, world: int, folder: Path) -> dict[str, Any]:
    ranks = [started(job, str(rank), str(world), str(folder)) for rank in range(world)]
    try:
        told = [rank.communicate(timeout=600)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * world
    found: dict[str, Any] = json.loads(told[0].splitlines()[-1])
    return found


def test_norms_of_a_thousand_parameters(tmp_path: Path) -> None:
    took = of_ranks("norms", WORLD, tmp_path)
    small, packed = readable(took["latency"]), readable(took["packed"])
    print(f"\nall_reduce of one number: {small}, of 16 numbers a parameter: {packed}")
    for ours, peer in (("measure", "full_tensor"), ("clip", "torch_clip")):
        ratio = took[peer] / took[ours]
        print(f"{ours} {readable(took[ours])}, {peer} {readable(took[peer])}: {ratio:.1f} times")
        keep(took[ours], took[peer])


@pytest.mark.parametrize("world", [2, 4])
def test_a_watched_step(world: int, tmp_path: Path) -> None:
    took = of_ranks("monitor", world, tmp_path)
    watched, peer, own = (readable(took[key]) for key in ("watched", "peer", "own"))
    share = 100 * took["own"] / took["peer"]
    print(
        f"\n{world} ranks, ten steps: watched {watched}, unwatched {peer}; the Monitor {own}, {share:.2f} %"
    )


def test_one_rank_of_a_thousand() -> None:
    process = started("pretended")
    try:
        told = process.communicate(timeout=600)[0]
    finally:
        process.kill()
    assert process.returncode == 0
    for verb, cost in json.loads(told.splitlines()[-1]).items():
        print(
            f"\n{verb}: {readable(cost['seconds'])}, {cost['calls']} reductions of {cost['bytes']:,} B",
            end="",
        )
