"""Many copies at once: on all threads and past the caches, with the values of copying one after the other."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from pyparam._base.native import _C

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def some(count: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Values of all magnitudes: bits at random, and not NaN."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(0, 256, (count * dtype.itemsize,), dtype=torch.uint8, generator=generator)
    return bits.view(dtype).nan_to_num()


def test_every_conversion_past_the_caches() -> None:
    pairs = [(to, of) for to, of in itertools.product(FLOATS, FLOATS)]
    sources = [some(900_001 + i, of, i)[1:] for i, (_, of) in enumerate(pairs)]
    targets = [torch.empty(900_003 + i, dtype=to)[3:] for i, (to, _) in enumerate(pairs)]
    assert sum(target.nbytes for target in targets) > 32 << 20
    _C.copy_tensors(targets, sources)
    for target, source in zip(targets, sources, strict=True):
        assert torch.equal(target, torch.empty_like(target).copy_(source)), (target.dtype, source.dtype)


@pytest.mark.parametrize("count", [0, 1, 3, 15, 16, 17, 100])
def test_short_ones(count: int) -> None:
    for to, of in itertools.product(FLOATS, FLOATS):
        source, target = some(count + 1, of, count)[1:], torch.zeros(count + 2, dtype=to)
        expected = target.clone()
        expected[1 : count + 1].copy_(source)
        _C.copy_tensors([target[1 : count + 1]], [source])
        assert torch.equal(target, expected)


def test_the_last_one_wins() -> None:
    whole = torch.zeros(3_000_000)
    targets = [whole[:2_000_000], whole[1_000_000:], whole[1_500_000:1_500_001]]
    for _ in range(5):
        _C.copy_tensors(targets, [torch.full_like(t, float(i)) for i, t in enumerate(targets)])
        assert whole[999_999] == 0
        assert whole[1_000_000:1_500_000].eq(1).all()
        assert whole[1_500_000] == 2
        assert whole[1_500_001:].eq(1).all()


def test_a_source_that_an_earlier_copy_writes() -> None:
    a, b, c = (torch.full((1_000_000,), float(i)) for i in range(3))
    _C.copy_tensors([b, c], [a, b])
    assert b.eq(0).all()
    assert c.eq(0).all()


def test_within_one_memory() -> None:
    whole = torch.arange(3_000_000.0)
    expected = whole[:2_000_000].clone()
    _C.copy_tensors([whole[1_000_000:]], [whole[:2_000_000]])
    assert torch.equal(whole[1_000_000:], expected)


def test_one_source_for_many() -> None:
    source = some(600_000, torch.bfloat16, 1)
    targets = [torch.zeros(600_000) for _ in range(8)]
    _C.copy_tensors(targets, [source] * 8)
    assert all(torch.equal(target, source.float()) for target in targets)


def test_one_thread_does_the_same() -> None:
    threads = torch.get_num_threads()
    source, target = some(3_000_000, torch.bfloat16, 2), torch.zeros(3_000_000)
    try:
        torch.set_num_threads(1)
        _C.copy_tensors([target], [source])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(target, source.float())
