"""Histograms by bits: what is counted, and what rounding to a smaller type would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from pyparam._base.closest import missing as missing_name
from pyparam._base.native import _C
from pyparam._base.wrappers import Names

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


Counted: TypeAlias = "Bins | _C.PackedBins"
"""What the CPU counted stays packed, in a few bytes a bin, until somebody needs all of it as tensors."""


def unpacked(bins: Counted) -> Bins:
    """All rows as tensors."""
    return bins if isinstance(bins, Bins) else Bins(*bins.tensors())


def entries_of(bins: Counted) -> int:
    """How many bins all rows have together."""
    return len(bins.bins) if isinstance(bins, Bins) else bins.entries


def below_of(bins: Counted, first: int, count: int) -> Tensor:
    """Counts of all rows below ``count`` of the rounding limits from ``first`` on: int64 [rows, count]."""
    return bins.below[:, first : first + count] if isinstance(bins, Bins) else bins.below(first, count)


def quantiles_of(bins: Counted, extremes: Tensor, one_value: Tensor, points: Tensor) -> Tensor:
    """float64 [rows, points]; ``extremes`` are each row's least and largest, ``one_value`` says of each
    whether a bin of it holds one value only."""
    if isinstance(bins, Bins):
        return _C.histogram_quantiles(*bins[1:], extremes, one_value, points)
    return bins.quantiles(extremes, one_value, points)


# Bins of normal values in an octave, and the bin of zero (csrc/kernels/histogram.h).
BINS_PER_OCTAVE = 128
ZERO_BIN = 1 << 15


class Histogram(NamedTuple):
    """Counts of values in bins that ascend: float64 ``lower`` and ``upper`` edges, int64 ``counts``.

    Bins without values are left out. A bin of positive values holds its lower edge and not its upper, one of
    negative values its upper and not its lower; all zeros are in the bin whose lower edge is 0.
    """

    lower: Tensor
    upper: Tensor
    counts: Tensor


def histogram_of(bins: Counted, rows: Sequence[int], bins_per_octave: int = BINS_PER_OCTAVE) -> Histogram:
    """The histogram of several rows together, in bins of which an octave of normal values has so many.

    Raises ValueError for another number than a power of two of at most 128.
    """
    if bins_per_octave not in (1, 2, 4, 8, 16, 32, 64, BINS_PER_OCTAVE):
        raise ValueError(
            f"histogram: bins_per_octave must be a power of two from 1 to {BINS_PER_OCTAVE}, "
            f"got {bins_per_octave!r}"
        )
    if not isinstance(bins, Bins):
        bins, rows = Bins(*bins.tensors(list(rows))), range(len(rows))
    entries = [slice(int(bins.offsets[row]), int(bins.offsets[row + 1])) for row in rows]
    if len(entries) == 1:
        number, counts = bins.bins[entries[0]], bins.counts[entries[0]]
    else:
        number = torch.cat([bins.bins[part] for part in entries])
        counts = torch.cat([bins.counts[part] for part in entries])
    # Counted from the bin of zero, numbers that agree but for their last bits are neighbours of one sign.
    dropped = (BINS_PER_OCTAVE // bins_per_octave).bit_length() - 1
    coarse, place = torch.unique((number - ZERO_BIN) >> dropped, return_inverse=True)
    summed = torch.zeros(len(coarse), dtype=torch.int64, device="cpu").index_add_(0, place, counts)
    first = (coarse << dropped) + ZERO_BIN
    lower, _ = _C.bin_edges(first)
    _, upper = _C.bin_edges(first + (1 << dropped) - 1)
    return Histogram(lower, upper, summed)


def steps_of(bins: Counted, dropped: int) -> tuple[Tensor, Tensor, Tensor]:
    """The rows' histograms in wider bins, whose numbers lack the last ``dropped`` bits.

    int64 how many bins each row has, how far each bin lies behind the one before it in its row (of a row's
    first its number), and counts: both in the narrowest unsigned type that holds them, int64 beyond 32 bits.
    """
    if not isinstance(bins, Bins):
        return bins.steps(dropped)
    return _C.histogram_steps(bins.offsets, bins.bins, bins.counts, dropped)


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
        row = Names({listed: i for i, listed in enumerate(self._names)}).find(name)
        if row is None:
            raise missing_name(name, self._names, "stats")
        return Fates(self.zero[row].item(), self.subnormal[row].item(), self.overflow[row].item())

    def __repr__(self) -> str:
        t = self.total
        return (
            f"Underflow to {self.dtype} of {len(self._names)} parameters: {t.zero:.3%} become zero, "
            f"{t.subnormal:.3%} subnormal, {t.overflow:.3%} overflow"
        )
