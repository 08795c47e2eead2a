"""Tensors of few values, whose rows are rounded several at a time: the bits of any other tensor's rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
import torch
from measuring import as_bits
from torch import Tensor

import pyparam


def drawn(count: int) -> list[Tensor]:
    """So many tensors of each kind that is told apart: by size, dtype, magnitude and what is odd in them."""
    generator = torch.Generator().manual_seed(count)
    out: list[Tensor] = []
    for i in range(count):
        size = int(torch.randint(1, 300, (), generator=generator)) if i % 3 else i % 40
        x = torch.randn(size, generator=generator) * 2.0 ** int(
            torch.randint(-20, 20, (), generator=generator)
        )
        kind = i % 11
        if kind == 1:
            x = torch.zeros(size) * x.sign()
        elif kind == 2:
            x[::3] = 0
        elif kind == 3:
            x = x * torch.exp2(torch.randint(-140, 120, (size,), generator=generator))
        elif kind == 4 and size > 2:
            x[size // 2] = (float("nan"), float("inf"), -float("inf"))[i % 3]
        elif kind == 5:
            x = torch.full((size,), 3.0) * (1 if i % 2 else -1)
        elif kind == 6:
            x = x.clamp(-1, 1) * 1e-39
        elif kind == 7:
            x = torch.full((size,), torch.finfo(torch.float32).max)
        out.append(x.to((torch.float32, torch.float32, torch.bfloat16, torch.float16, torch.float64)[i % 5]))
    return out


@pytest.mark.parametrize("count", [1, 7, 8, 9, 1023, 1025, 3000])
def test_rows_are_those_of_the_way_that_counts_bins(count: int) -> None:
    tensors = drawn(count)
    # With bins to count each tensor is measured by itself, whatever its size.
    alone = pyparam.measure(tensors, histogram=True)
    together = pyparam.measure(tensors)
    for ours, theirs in zip(as_bits(together), as_bits(alone), strict=False):
        assert torch.equal(ours, theirs)


def test_rows_do_not_depend_on_their_neighbours() -> None:
    tensors = drawn(300)
    together = pyparam.measure(tensors)
    for i in range(0, 300, 7):
        alone = pyparam.measure([tensors[i]])
        for ours, theirs in zip(as_bits(together), as_bits(alone), strict=True):
            assert torch.equal(ours[i], theirs[0])


def test_memory_around_the_values_is_not_read_as_theirs() -> None:
    """A part of a vector is filled up with something else than what lies behind the tensor."""
    whole = torch.full((600,), float("inf"))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for begin, size in ((1, 1), (16, 15), (17, 33), (3, 255)):
            memory = whole.to(dtype)
            part = memory[begin : begin + size]
            part.copy_(torch.linspace(1, 2, size))
            row = pyparam.measure([part])[0]
            assert (row.posinfs, row.min, row.max) == (0, float(part.min()), float(part.max()))
            assert row.mean == float(sum(map(Fraction, part.tolist())) / size)


def test_what_is_held_is_not_written_by_later_calls() -> None:
    """Memory that one call gives back is taken by the next ones: only what nobody holds."""
    tensors = [torch.full((8,), float(i)) for i in range(3000)]
    more = [torch.full((8,), -float(i)) for i in range(4000)]
    held = pyparam.measure(tensors)
    values, layouts = held._values, held._layouts
    before = values.clone()
    del held
    for _ in range(3):
        pyparam.measure(more)
        pyparam.measure(tensors[:2500])
    assert torch.equal(values.view(torch.int64), before.view(torch.int64))
    assert layouts.shape(2999) == (8,)
    assert layouts.dtype(0) is torch.float32


def test_threads_take_and_give_back_memory_at_once() -> None:
    lists = [[torch.full((8,), float(i + j)) for i in range(1500)] for j in range(4)]
    expected = [pyparam.measure(tensors)._values.clone() for tensors in lists]

    def measured(j: int) -> bool:
        return all(torch.equal(pyparam.measure(lists[j])._values[:, 2], expected[j][:, 2]) for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(measured, range(4)))


def test_layouts_of_all_ranks() -> None:
    shapes = [(), (3,), (2, 2), (2, 1, 3), (1, 2, 1, 2, 1), (0, 4)] * 1000
    stats = pyparam.measure([torch.ones(shape) for shape in shapes])
    assert stats._layouts.shapes() == shapes
    assert stats._layouts.shape(4099) == shapes[4099]
    assert stats[5999].shape == (0, 4)
