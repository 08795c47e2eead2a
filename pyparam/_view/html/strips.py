"""Root mean squares of a matrix's rows and columns, as strips of a few cells that a page can hold."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyparam._findings import Survey
from pyparam._view.html.pack import Packer

# What a report spends on strips: cells of one, and of all, and matrices that have some.
_CELLS = 256
_FEWEST_CELLS = 64
_ALL_CELLS = 1 << 20
_MATRICES = 1 << 14
_SMALL = 64  # values, below which the table says all

_BLOCK = 1 << 18  # values, whose squares are read twice while they are in a cache
_SQUARES = (1e-15, 1e15)  # magnitudes whose squares float32 holds with room for sums

ZERO, NOT_FINITE = 0, 255
_LEVELS = 253.0


class Norms(NamedTuple):
    """Root mean square of each row, and of each column (what one input is multiplied with), float64."""

    rows: Tensor
    columns: Tensor


def norms_of(tensor: Tensor, largest: float) -> Norms:
    """Of ``[rows, columns, ...]``; ``largest`` is the largest magnitude in it."""
    matrix = tensor.reshape(tensor.shape[0], tensor.shape[1], -1)
    rows, columns, inner = matrix.shape
    narrow = _SQUARES[0] < largest < _SQUARES[1] and matrix.dtype != torch.float64
    dtype = torch.float32 if narrow else torch.float64
    wide = columns * inner
    step = min(rows, max(1, _BLOCK // wide))
    device = matrix.device
    # Sums as products with ones: BLAS adds along either side as fast as memory answers, ATen along one alone.
    ones = torch.ones(max(step, wide), dtype=dtype, device=device)
    scratch = torch.empty(step, wide, dtype=dtype, device=device)
    by_row = torch.empty(rows, dtype=dtype, device=device)
    squares = torch.zeros(wide, dtype=torch.float64, device=device)
    for first in range(0, rows, step):
        block = matrix[first : first + step].reshape(-1, wide).to(dtype)
        held = torch.mul(block, block, out=scratch[: len(block)])
        torch.mv(held, ones[:wide], out=by_row[first : first + step])
        squares += torch.mv(held.t(), ones[: len(block)])
    by_column = squares.reshape(columns, inner).sum(1) / (rows * inner)
    return Norms((by_row.double() / wide).sqrt().cpu(), by_column.sqrt().cpu())


def add_strips(packer: Packer, seen: Survey) -> None:
    """Adds, for every matrix that has strips, its row of statistics, and of its rows and its columns the
    number of cells, the range of the levels and the levels: of each cell the largest and the least.

    A level is 1 to 254 along the logarithm from ``strip_low`` to ``strip_high`` (powers of two), 0 for a row
    of zeros and 255 for one with a NaN or an infinity.
    """
    numel, largest = seen.column("numel"), seen.column("max_abs")
    rows = [
        row
        for row in seen.rows
        if numel[row] >= _SMALL and seen.is_float(row) and len(seen.sizes(row)) >= 2 and seen.is_matrix(row)
    ]
    rows = sorted(sorted(rows, key=lambda row: -numel[row])[:_MATRICES])
    cells = min(_CELLS, max(_FEWEST_CELLS, _ALL_CELLS // (2 * max(len(rows), 1))))
    lengths, low, high, levels = [], [], [], []
    for row in rows:
        for norms in norms_of(seen.values(row), largest[row]):
            strip = _strip(norms, cells)
            lengths.append(len(strip.levels) // 2)
            low.append(strip.low)
            high.append(strip.high)
            levels.append(strip.levels)
    at = seen.at.tolist()
    packer.add("strip_stats", torch.tensor([at[row] for row in rows], dtype=torch.int64, device="cpu"))
    packer.add("strip_length", torch.tensor(lengths, dtype=torch.int64, device="cpu"))
    packer.add("strip_low", torch.tensor(low, dtype=torch.float64, device="cpu"))
    packer.add("strip_high", torch.tensor(high, dtype=torch.float64, device="cpu"))
    empty = torch.empty(0, dtype=torch.uint8, device="cpu")
    packer.add("strip_level", torch.cat([empty, *levels]))


class _Strip(NamedTuple):
    low: float
    high: float
    levels: Tensor  # uint8 [2 * cells]: the largest of each cell, then the least


def _strip(norms: Tensor, most: int) -> _Strip:
    cells = min(len(norms), most)
    good = norms.isfinite() & (norms > 0)
    logs = norms.log2()
    low, high = 0.0, 0.0
    if bool(good.any()):
        low, high = float(logs[good].min()), float(logs[good].max())
    scale = _LEVELS / (high - low) if high > low else 0.0
    level = 1 + ((logs - low) * scale).round().nan_to_num(0, 0, 0)
    level = torch.where(norms == 0, float(ZERO), torch.where(norms.isfinite(), level, float(NOT_FINITE)))
    # Each cell has as many as every other, or one more.
    cell = torch.arange(len(norms), device="cpu") * cells // len(norms)
    ends = [
        torch.zeros(cells, dtype=level.dtype, device="cpu").scatter_reduce(
            0, cell, level, reduce, include_self=False
        )
        for reduce in ("amax", "amin")
    ]
    return _Strip(low, high, torch.cat(ends).to(torch.uint8))
