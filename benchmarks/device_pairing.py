"""Times two ways to do one thing on a CUDA device, alternately in one run, and prints their ratio."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pairing import keep, readable

from pyparam._base.native import _C

ready = _C.BUILT_FOR_CUDA and torch.cuda.is_available()
if not ready and os.environ.get("PYPARAM_REQUIRE_CUDA") == "1":
    pytest.exit(
        "PYPARAM_REQUIRE_CUDA=1, but there is no CUDA device, or the build is without CUDA", returncode=3
    )
needs_cuda = pytest.mark.skipif(not ready, reason="needs a CUDA device and the CUDA build")

Call = Callable[[], Any]


def device_seconds(work: Call) -> float:
    """Between two events around one call, on a device that has nothing else to do."""
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    result = work()
    end.record()
    end.synchronize()
    del result
    return begin.elapsed_time(end) / 1e3


def host_seconds(work: Call) -> float:
    """What one call costs the CPU, while the device is busy with something else."""
    torch.cuda.synchronize()
    torch.cuda._sleep(1 << 27)
    begin = time.perf_counter()
    result = work()
    took = time.perf_counter() - begin
    torch.cuda.synchronize()
    del result
    return took


def versus_on_device(
    ours: Call, peer: Call, *, floor: float, moved: int | None = None, rounds: int = 20, on_host: bool = False
) -> float:
    """Prints median peer / median ours beside the floor. ``moved``: the bytes ours reads and writes."""
    clock = host_seconds if on_host else device_seconds
    for work in (ours, ours, peer, peer):
        clock(work)
    times: tuple[list[float], list[float]] = ([], [])
    for round_ in range(rounds):
        for side in (0, 1) if round_ % 2 == 0 else (1, 0):
            times[side].append(clock((ours, peer)[side]))
    mine, theirs = (statistics.median(side) for side in times)
    keep(mine, theirs)
    speed = f", {moved / mine / 1e12:.2f} TB/s" if moved is not None else ""
    verdict = "met" if theirs / mine >= floor else "MISSED"
    print(
        f"\n    {torch.cuda.get_device_name()}: ours {readable(mine)}{speed}, peer {readable(theirs)}: "
        f"{theirs / mine:.2f}× (floor {floor}×, {verdict}; {'host' if on_host else 'device'} time)"
    )
    return theirs / mine
