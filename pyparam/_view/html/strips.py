"""Root mean squares of a matrix's rows and columns, as strips of a few cells that a page can hold."""

from __future__ import annotations

import ctypes
import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyparam._findings import Survey
from pyparam._findings.layouts import Shape
from pyparam._view.html.pack import Packer

# What a report spends on strips: cells of one, and of all, and matrices that have some.
_CELLS = 256
_FEWEST_CELLS = 64
_ALL_CELLS = 1 << 20
_MATRICES = 1 << 14
_SMALL = 64  # values, below which the table says all

_TINY = 1 << 12  # values of a matrix that is read together with others
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
    numel = seen.figure("numel")
    flat = seen.layouts.where(lambda kind: len(kind.sizes or ()) < 2)
    rows = _largest(seen.measured & (numel >= _SMALL) & seen.floats & seen.matrices & ~flat, numel)
    cells = min(_CELLS, max(_FEWEST_CELLS, _ALL_CELLS // (2 * max(len(rows), 1))))
    found: dict[int, list[_Strip]] = {}
    for some in _together(seen, rows):
        parts = [_strips(norms, cells) for norms in _norms(seen, some)]
        found |= {row: [part[i] for part in parts] for i, row in enumerate(some)}
    strips = [strip for row in rows for strip in found[row]]
    packer.add("strip_stats", seen.at[torch.tensor(rows, dtype=torch.int64, device="cpu")])
    lengths = [len(strip.levels) // 2 for strip in strips]
    packer.add("strip_length", torch.tensor(lengths, dtype=torch.int64, device="cpu"))
    for name, column in (("low", [s.low for s in strips]), ("high", [s.high for s in strips])):
        packer.add(f"strip_{name}", torch.tensor(column, dtype=torch.float64, device="cpu"))
    levels = bytearray().join(strip.levels for strip in strips)
    none = torch.empty(0, dtype=torch.uint8, device="cpu")
    packer.add("strip_level", torch.frombuffer(levels, dtype=torch.uint8) if levels else none)


def _largest(marked: Tensor, numel: Tensor) -> list[int]:
    """The marked rows, in order, or as many of them as have strips: the first of the largest."""
    rows = marked.nonzero().flatten()
    if len(rows) > _MATRICES:
        rows = rows[numel[rows].sort(descending=True, stable=True).indices[:_MATRICES]].sort().values
    found: list[int] = rows.tolist()
    return found


def _together(seen: Survey, rows: list[int]) -> list[list[int]]:
    """The rows, small matrices of one shape and dtype together."""
    alone = [[row] for row in rows if seen.column("numel")[row] > _TINY]
    alike: dict[Shape, list[int]] = {}
    for row in rows:
        if seen.column("numel")[row] <= _TINY:
            alike.setdefault(seen.layouts[row], []).append(row)
    step = _BLOCK // _TINY
    return alone + [some[i : i + step] for some in alike.values() for i in range(0, len(some), step)]


def _norms(seen: Survey, rows: list[int]) -> Norms:
    """Norms of matrices of one shape, each a row of what it gives."""
    if len(rows) == 1:
        found = norms_of(seen.values(rows[0]), seen.column("max_abs")[rows[0]])
        return Norms(found.rows.unsqueeze(0), found.columns.unsqueeze(0))
    sizes = seen.sizes(rows[0])
    squares = torch.stack([seen.values(row) for row in rows]).double().square_()
    squares = squares.reshape(len(rows), sizes[0], sizes[1], -1)
    return Norms(squares.mean((2, 3)).sqrt().cpu(), squares.mean((1, 3)).sqrt().cpu())


class _Strip(NamedTuple):
    low: float
    high: float
    levels: bytes  # [2 * cells]: the largest of each cell, then the least


def _strips(norms: Tensor, most: int) -> list[_Strip]:
    """A strip of at most so many cells for each row of norms."""
    count, length = norms.shape
    cells = min(length, most)
    good = norms.isfinite() & (norms > 0)
    logs = norms.log2()
    there = good.any(1)
    low = torch.where(there, torch.where(good, logs, math.inf).amin(1), 0.0)
    high = torch.where(there, torch.where(good, logs, -math.inf).amax(1), 0.0)
    scale = torch.where(high > low, _LEVELS / (high - low), 0.0)
    level = 1 + ((logs - low.unsqueeze(1)) * scale.unsqueeze(1)).round().nan_to_num(0, 0, 0)
    level = torch.where(norms == 0, float(ZERO), torch.where(norms.isfinite(), level, float(NOT_FINITE)))
    # Each cell has as many as every other, or one more.
    cell = (torch.arange(length, device="cpu") * cells // length).expand(count, -1)
    ends = [
        torch.zeros(count, cells, dtype=level.dtype, device="cpu").scatter_reduce(
            1, cell, level, reduce, include_self=False
        )
        for reduce in ("amax", "amin")
    ]
    # Bytes, of which thousands of strips take less than as tensors.
    told = torch.cat(ends, 1).to(torch.uint8)
    levels = ctypes.string_at(told.data_ptr(), told.numel())
    rows = (levels[i : i + 2 * cells] for i in range(0, len(levels), 2 * cells))
    return [_Strip(*of) for of in zip(low.tolist(), high.tolist(), rows, strict=True)]
