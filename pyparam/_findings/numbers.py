"""Columns as plain numbers: what a check reads one by one, of the few rows that it looks at."""

from __future__ import annotations

import ctypes
from array import array
from typing import Any

import torch
from torch import Tensor


def numbers(column: Tensor) -> array[Any]:
    """A float64 or int64 column of the CPU as an array, which gives Python's numbers."""
    dense = column.contiguous()
    kind = "d" if dense.dtype == torch.float64 else "q"
    assert dense.dtype in (torch.float64, torch.int64)
    return array(kind, ctypes.string_at(dense.data_ptr(), dense.numel() * 8) if len(dense) else b"")
