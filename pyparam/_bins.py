"""Histograms by bits: what is counted, and what rounding to a smaller type would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyparam._closest import missing as missing_name

# Targets of `underflow`, in the order of kRoundingLimits (csrc/kernels/histogram.h).
LIMIT_TYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float32,
)
# Types with at most 7 bits of mantissa, each of whose values has a bin of its own.
ONE_VALUE_A_BIN = {
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
    torch.bool,
}


class Bins(NamedTuple):
    """Histograms of all rows and of everything together, as the op gives them.

    Row r has entries ``offsets[r]`` to ``offsets[r + 1]`` of ``bins`` (int32, ascending) and ``counts``
    (int64); ``below`` ([rows + 1, limits], int64) counts the values below each rounding limit.
    """

    below: Tensor
    offsets: Tensor
    bins: Tensor
    counts: Tensor


class Histogram(NamedTuple):
    """Counts of values in bins that ascend: float64 ``lower`` and ``upper`` edges, int64 ``counts``.

    Bins without values are left out. A bin of positive values holds its lower edge and not its upper, one of
    negative values its upper and not its lower; all zeros are in the bin whose lower edge is 0.
    """

    lower: Tensor
    upper: Tensor
    counts: Tensor


class Fates(NamedTuple):
    """Fractions of a parameter's values: that become zero, become or stay subnormal, and overflow."""

    zero: float
    subnormal: float
    overflow: float


class Underflow:
    """What rounding to a dtype would do: float64 columns ``zero``, ``subnormal``, ``overflow``; ``total``."""

    __slots__ = ("_names", "dtype", "overflow", "subnormal", "total", "zero")

    def __init__(self, dtype: torch.dtype, names: Sequence[str], fractions: Tensor) -> None:
        self.dtype = dtype
        self._names = names
        self.zero, self.subnormal, self.overflow = fractions[:-1].unbind(1)
        self.total = Fates(*fractions[-1].tolist())

    def __getitem__(self, name: str) -> Fates:
        """The fractions of a parameter. Raises KeyError for a name that is not there."""
        try:
            row = self._names.index(name)
        except ValueError:
            raise missing_name(name, self._names, "stats") from None
        return Fates(self.zero[row].item(), self.subnormal[row].item(), self.overflow[row].item())

    def __repr__(self) -> str:
        t = self.total
        return (
            f"Underflow to {self.dtype} of {len(self._names)} parameters: {t.zero:.3%} become zero, "
            f"{t.subnormal:.3%} subnormal, {t.overflow:.3%} overflow"
        )
