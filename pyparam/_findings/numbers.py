"""Columns as plain numbers: what a check reads one by one, of the few rows that it looks at."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_NOTHING = ctypes.c_char()


def numbers(column: Tensor) -> memoryview[Any]:
    """A float64 or int64 column of the CPU as a view of its memory, which gives Python's numbers."""
    dense = column.contiguous()
    assert dense.dtype in (torch.float64, torch.int64)
    held = (ctypes.c_char * (8 * len(dense))).from_address(dense.data_ptr() or ctypes.addressof(_NOTHING))
    held.tensor = dense  # type: ignore[attr-defined]  # lives as long as a view does
    flat = memoryview(held).cast("B")
    return flat.cast("d") if dense.dtype == torch.float64 else flat.cast("q")


def column(rows: Sequence[int]) -> Tensor:
    """Positions as int64, without a copy of what ``numbers`` gave or a part of it."""
    if isinstance(rows, memoryview) and len(rows):
        return torch.frombuffer(rows, dtype=torch.int64)
    return torch.tensor(rows, dtype=torch.int64, device="cpu")
