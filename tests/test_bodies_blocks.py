"""The pinned memory of CUDA graphs: given back from a C callback, which no exception may cross, and used again."""

from __future__ import annotations

import ctypes

import host_kernels
import pytest


@pytest.mark.parametrize(("wanted", "found"), [(1, 1), (2, 4), (4, 4), (5, 16), (16, 16), (17, -1)])
def test_the_smallest_that_is_large_enough(wanted: int, found: int) -> None:
    sizes = (ctypes.c_int64 * 4)(4, 16, 1, 16)
    library = host_kernels.library("blocks")
    library.best_fit.restype = ctypes.c_int64
    assert library.best_fit(sizes, ctypes.c_int64(4), ctypes.c_int64(wanted)) == found


def test_no_block_is_in_two_hands() -> None:
    twice, left = ctypes.c_int64(-1), ctypes.c_int64(-1)
    host_kernels.library("blocks").hammer(4, 20_000, ctypes.byref(twice), ctypes.byref(left))
    assert (twice.value, left.value) == (0, 3)
