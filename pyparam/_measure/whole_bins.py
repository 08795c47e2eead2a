"""Histograms of parts: how far each row's bins reach, and their counts as vectors that ranks add up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyparam._measure.bins import LIMIT_TYPES, ZERO_BIN, Bins

_LIMITS = 3 * len(LIMIT_TYPES)
_BEYOND = 2 * ZERO_BIN
# The bins of the least magnitudes of either sign always have a cell; others lie in a window for each sign.
_MIDDLE = (ZERO_BIN - 1, ZERO_BIN)


class Windows:
    """The bins of some rows. ``reach`` (int64 ``[rows, 4]``) has the first bin and minus the end of the
    negative ones, and the same of the positive ones: a minimum over the ranks holds all of theirs."""

    def __init__(self, bins: Bins) -> None:
        rows = len(bins.offsets) - 2
        self._rows = rows
        self._below = bins.below[:rows]
        end = int(bins.offsets[rows])
        self._row = torch.arange(rows, device="cpu").repeat_interleave(bins.offsets[: rows + 1].diff())
        self._bins = bins.bins[:end].long()
        self._counts = bins.counts[:end]
        self.reach = torch.stack(
            [
                column
                for side in (self._bins < _MIDDLE[0], self._bins > _MIDDLE[1])
                for column in (self._least(side, self._bins), self._least(side, -(self._bins + 1)))
            ],
            1,
        )
        self._united = self.reach

    def _least(self, side: Tensor, values: Tensor) -> Tensor:
        out = torch.full((self._rows,), _BEYOND, dtype=torch.int64, device="cpu")
        return out.scatter_reduce_(0, self._row[side], values[side], "amin")

    def packed(self, reach: Tensor) -> list[tuple[Tensor, Tensor | int]]:
        """Counts below the rounding limits, and those of all bins that the united reach has."""
        self._united = reach
        begins, per_row = self._cells()
        cells = torch.zeros(int(per_row.sum()), dtype=torch.int64, device="cpu")
        cells[begins[self._row] + self._place(self._row, self._bins)] = self._counts
        return [(self._below.flatten(), _LIMITS), (cells, per_row)]

    def _cells(self) -> tuple[Tensor, Tensor]:
        per_row = 2 + self._width(0) + self._width(2)
        return per_row.cumsum(0) - per_row, per_row

    def _width(self, column: int) -> Tensor:
        first, end = self._united[:, column], -self._united[:, column + 1]
        return (end - first).clamp(min=0)

    def _place(self, row: Tensor, bins: Tensor) -> Tensor:
        negative = 2 + bins - self._united[row, 0]
        positive = 2 + self._width(0)[row] + bins - self._united[row, 2]
        out = torch.where(bins < _MIDDLE[0], negative, positive)
        return torch.where((bins == _MIDDLE[0]) | (bins == _MIDDLE[1]), bins - _MIDDLE[0], out)

    def unpacked(self, sums: Sequence[Tensor], counted: Tensor) -> Bins:
        """The histograms of such sums, with that of the counted rows together as the last."""
        below, cells = sums[0].view(-1, _LIMITS), sums[1]
        begins, per_row = self._cells()
        row = torch.arange(self._rows, device="cpu").repeat_interleave(per_row)
        at = torch.arange(len(cells), device="cpu") - begins[row]
        negative = self._width(0)[row]
        bins = torch.where(
            at < 2,
            at + _MIDDLE[0],
            torch.where(
                at < 2 + negative,
                at - 2 + self._united[row, 0],
                at - 2 - negative + self._united[row, 2],
            ),
        )
        kept = cells != 0
        row, bins, cells = row[kept], bins[kept], cells[kept]
        order = (row * _BEYOND + bins).argsort()
        row, bins, cells = row[order], bins[order], cells[order]
        chosen = counted[row]
        total, place = torch.unique(bins[chosen], return_inverse=True)
        of_total = torch.zeros(len(total), dtype=torch.int64, device="cpu").index_add_(
            0, place, cells[chosen]
        )
        per_row = torch.bincount(row, minlength=self._rows)
        offsets = torch.cat((torch.zeros(1, dtype=torch.int64, device="cpu"), per_row.cumsum(0)))
        return Bins(
            torch.cat((below, below[counted].sum(0, keepdim=True))),
            torch.cat((offsets, offsets[-1:] + len(total))),
            torch.cat((bins, total)).int(),
            torch.cat((cells, of_total)),
        )
