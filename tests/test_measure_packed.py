"""Histograms while they are packed say what they say as tensors, and take little memory."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pyparam
from pyparam._base.native import _C
from pyparam._measure.bins import Bins, below_of, entries_of, histogram_of, quantiles_of, steps_of, unpacked

LENGTHS = (0, 1, 3, 1023, 1024, 1025, 70_000, 0)


def tensors(lengths: tuple[int, ...] = LENGTHS, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(len(lengths))
    return [
        (torch.randn(n, generator=made) * 2.0 ** torch.randint(-40, 40, (n,), generator=made)).to(dtype)
        for n in lengths
    ]


def packed_of(stats: pyparam.Stats) -> _C.PackedBins:
    bins = stats._columns.bins
    assert isinstance(bins, _C.PackedBins)
    return bins


def assert_alike(packed: _C.PackedBins, stats: pyparam.Stats) -> None:
    bins = unpacked(packed)
    rows = len(bins.offsets) - 1
    assert len(packed) == rows == len(stats) + 1
    assert entries_of(packed) == entries_of(bins) == len(bins.bins) == int(bins.offsets[-1])
    for first in range(0, 21, 3):
        assert torch.equal(below_of(packed, first, 3), below_of(bins, first, 3))
    for dropped in (0, 3, 7):
        for a, b in zip(steps_of(packed, dropped), steps_of(bins, dropped), strict=True):
            assert torch.equal(a, b)
    extremes = stats._values[:, :2].contiguous()
    points = torch.tensor([0.0, 0.3, 0.5, 1.0], dtype=torch.float64)
    single = torch.zeros(rows, dtype=torch.bool)
    found = [quantiles_of(some, extremes, single, points) for some in (packed, bins)]
    assert torch.equal(*(some.view(torch.int64) for some in found))
    for chosen in ([0], [rows - 1], [rows - 1, rows // 2, rows // 2, 0]):
        for a, b in zip(histogram_of(packed, chosen, 16), histogram_of(bins, chosen, 16), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int16])
def test_packed_and_as_tensors(dtype):
    listed = tensors(dtype=dtype)
    stats = pyparam.measure(listed, histogram=True)
    packed = packed_of(stats)
    assert_alike(packed, stats)
    expected = torch.ops.pyparam.measure_histogram(listed)[2:]
    assert all(torch.equal(a, b) for a, b in zip(unpacked(packed), expected, strict=True))


@settings(max_examples=20)
@given(st.lists(st.integers(0, 9), max_size=30))
def test_packed_rows_of_any_list(lengths):
    stats = pyparam.measure(tensors(tuple(lengths)), histogram=True)
    if isinstance(stats._columns.bins, _C.PackedBins):  # of no tensors the op tells
        assert_alike(packed_of(stats), stats)


def test_parts_that_several_threads_counted():
    tensor = torch.randn(1 << 20)
    counted = {}
    before = torch.get_num_threads()
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            counted[threads] = unpacked(
                packed_of(pyparam.measure([tensor[:5].clone(), tensor], histogram=True))
            )
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(counted[1], counted[4], strict=True))
    assert int(counted[1].counts.sum()) == 2 * (5 + (1 << 20))
    assert counted[1].below[:, 2].tolist() == [5, 1 << 20, 5 + (1 << 20)]


def test_limits_and_rows_that_are_not_there():
    packed = packed_of(pyparam.measure(tensors(), histogram=True))
    for rows in ([-1], [len(packed)]):
        with pytest.raises(IndexError, match="no such row"):
            packed.tensors(rows)
    for first, count in ((-1, 1), (19, 3), (0, -1)):
        with pytest.raises(IndexError, match="no such limits"):
            packed.below(first, count)


def test_a_bin_of_a_small_tensor_takes_three_bytes_at_most():
    stats = pyparam.measure([torch.randn(64) for _ in range(2000)], histogram=True, quantiles=(0.5,))
    packed = packed_of(stats)
    assert packed.nbytes < 3 * packed.entries + 64 * len(packed)
    # What is asked of rows, and of all of them by columns, leaves them packed.
    assert bool((stats.quantiles.abs() < 1).all())
    assert stats.underflow(torch.float16).total.overflow == 0
    assert int(stats.histogram("1999").counts.sum()) == 64
    assert packed_of(stats) is packed


def test_stats_that_are_copied_or_sorted_have_tensors():
    stats = pyparam.measure({"a": torch.randn(40), "b": torch.randn(3)}, histogram=True)
    for other in (copy.deepcopy(stats), pickle.loads(pickle.dumps(stats)), stats.sort("numel", False).sort("name", False)):  # fmt: skip
        assert isinstance(other._columns.bins, Bins)
        assert all(torch.equal(a, b) for a, b in zip(other._bins or (), stats._bins or (), strict=True))
