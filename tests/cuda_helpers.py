"""What the tests on a CUDA device have in common."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

LONG = 1 << 30  # clock cycles: most of a second


def bits(tensor: Tensor) -> Tensor:
    """The bytes of a tensor's elements, in order, on the CPU."""
    return tensor.detach().cpu().reshape(-1).clone(memory_format=torch.contiguous_format).view(torch.uint8)


def on_device(tensors: list[Tensor], device: str | torch.device = "cuda") -> list[Tensor]:
    """Copies that lie in memory as the originals do: strides, shared storages and offsets are kept."""
    storages: dict[int, Tensor] = {}
    moved = []
    for tensor in tensors:
        key = tensor.untyped_storage().data_ptr()
        if key == 0 or key not in storages:
            raw = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
            storages[key] = raw.to(device)
        whole = storages[key].untyped_storage()
        empty = torch.empty(0, dtype=tensor.dtype, device=device)
        moved.append(empty.set_(whole, tensor.storage_offset(), tensor.shape, tensor.stride()))
    return moved


def launches(work: Callable[[], Any]) -> int:
    """How many kernels a call starts, copies of metadata not counted."""
    work()
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            work()
            torch.cuda.synchronize()
    return sum("body_kernel" in event.name for event in profile.events())


def sync_is(mode: str) -> None:
    with warnings.catch_warnings():  # torch says that this mode is a prototype
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode(mode)


def fill_pools(work: Callable[[], Any], times: int = 4) -> None:
    """Runs a call several times while the device is busy, so that the allocators have blocks enough: asking the
    driver for the first ones may wait."""
    torch.cuda._sleep(LONG // 4)
    results = [work() for _ in range(times)]
    torch.cuda.synchronize()
    del results


@contextmanager
def no_waiting() -> Iterator[None]:
    """Fails if what runs inside waits for the device: the device is kept busy meanwhile."""
    torch.cuda.synchronize()
    torch.cuda._sleep(LONG)
    busy = torch.cuda.Event()
    busy.record()
    sync_is("error")
    try:
        yield
        assert not busy.query(), "the call waited for the device"
    finally:
        sync_is("default")
        torch.cuda.synchronize()


def captured(work: Callable[[], Any], warm_up: int = 3) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A graph of a call, and what the call gave."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm_up):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = work()
    return graph, out


def churn() -> None:
    """Uses up and gives back pinned and device memory, as a program does between two replays."""
    for size in (1 << 10, 1 << 14, 1 << 18, 1 << 22):
        blocks = [torch.full((size,), 0xFF, dtype=torch.uint8).pin_memory() for _ in range(8)]
        there = [block.to("cuda", non_blocking=True) for block in blocks]
        del blocks, there
    torch.cuda.synchronize()
