"""Stats.by: rows united by module, layer, role or a function, exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyparam._base.native import _C
from pyparam._measure.bins import Bins, unpacked
from pyparam._measure.labels import By, labels_of
from pyparam._measure.rows import Layout, ListedLayouts, cells, merged_layout

if TYPE_CHECKING:
    from pyparam._measure.columns import Columns
    from pyparam._measure.stats import Stats

_BARS = "▁▂▃▄▅▆▇█"
_WIDEST = 48
_SHORTEST = 24  # bars of a strip, before a table on a narrow terminal gives up a column
_DROPPED = ("min", "max", "mean", "zeros", "values", "nonfinite", "tensors", "std")
_OCTAVES = 2.0  # a strip spans at least so many, so that what is alike looks alike


def members_of(stats: Stats, by: By) -> dict[str, list[int]]:
    """The rows of each group, in the order in which groups come first."""
    groups: dict[str, list[int]] = {}
    for row, label in enumerate(labels_of(stats.names, by)):
        if label is not None:
            groups.setdefault(label, []).append(row)
    return groups


def distinct_members(stats: Stats, groups: Mapping[str, Sequence[int]]) -> list[list[int]]:
    """Without those that are another's memory under the same layout, which a group counts once."""
    kept = []
    shared, counts = stats.shared_with, stats._counts
    for rows in groups.values():
        seen: set[tuple[str, tuple[int, ...] | None, int]] = set()
        own = []
        for row in rows:
            first = shared[row]
            if first is not None:
                key = (first, stats._layouts.shape(row), int(counts[row, 1]))
                if key in seen:
                    continue
                seen.add(key)
            own.append(row)
        kept.append(own)
    return kept


def merged(columns: Columns, groups: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Bins | None]:
    """Columns of the groups, and the total as it was.

    Neighbours are merged in rounds, two by two: the order is fixed, and the rounding that of few additions.
    """
    total = columns.values.shape[0] - 1
    values, counts, counted = columns
    bins = None if counted is None else unpacked(counted)
    place: list[list[int]] = [list(rows) for rows in groups]
    while True:
        first, second = [], []
        for rows in place:
            first += rows[0::2]
            second += rows[1::2] + [-1] * (len(rows) % 2)
        a, b = (
            torch.tensor([*first, total], dtype=torch.int64, device="cpu"),
            torch.tensor([*second, -1], dtype=torch.int64, device="cpu"),
        )
        if bins is not None:
            below = bins.below[a] + torch.where((b < 0).unsqueeze(1), 0, bins.below[b.clamp(min=0)])
            bins = Bins(below, *_C.merge_histograms(*bins[1:], a, *bins[1:], b))
        values, counts = _C.merge_statistics(values, counts, a, values, counts, b)
        total = len(first)
        position = 0
        for i, rows in enumerate(place):
            length = (len(rows) + 1) // 2
            place[i] = list(range(position, position + length))
            position += length
        if all(len(rows) <= 1 for rows in place):
            return values, counts, bins


def layouts_of(stats: Stats, groups: Mapping[str, Sequence[int]]) -> ListedLayouts:
    made = []
    for rows in groups.values():
        layout = merged_layout([stats._layout(row) for row in rows])
        made.append(layout if len(rows) == 1 else Layout(None, layout.dtype, layout.device))
    return ListedLayouts(made)


def strip(values: Sequence[float], widest: int = _WIDEST) -> str:
    """Bars of the logarithms of positive values, side by side: "·" for zero, "!" for one that is not finite.

    The lowest bar is the least and the highest the largest, where they are two octaves apart or more.
    """
    if len(values) > widest:
        # The largest of each stretch: what stands out has to stay.
        edges = [i * len(values) // widest for i in range(widest + 1)]
        values = [_worst(values[a:b]) for a, b in itertools.pairwise(edges)]
    levels = [math.log2(value) for value in values if 0 < value < math.inf]
    if not levels:
        return "".join("·" if value == 0 else "!" for value in values)
    low, high = min(levels), max(levels)
    middle, span = (low + high) / 2, max(high - low, _OCTAVES)
    low = middle - span / 2
    made = []
    for value in values:
        if value == 0:
            made.append("·")
        elif not 0 < value < math.inf:
            made.append("!")
        else:
            made.append(_BARS[min(7, int(8 * (math.log2(value) - low) / span))])
    return "".join(made)


def _worst(values: Sequence[float]) -> float:
    return next((value for value in values if not math.isfinite(value)), max(values))


def narrowed(
    header: list[str], rows: list[list[str]], members: Sequence[Sequence[float]], width: int
) -> list[list[str]]:
    """Lines of ``group_cells`` that are at most ``width`` wide, if names and strips leave room: without the
    columns that tell least, and with shorter strips."""
    lines = [header, *rows]
    needed = [max(len(line[i]) for line in lines) + 2 for i in range(len(header) - 1)]
    longest = min(_WIDEST, max((len(values) for values in members), default=0))
    kept = list(range(len(header) - 1))
    for name in _DROPPED:
        if sum(needed[i] for i in kept) + min(longest, _SHORTEST) <= width:
            break
        kept.remove(header.index(name))
    room = max(_SHORTEST, width - sum(needed[i] for i in kept))
    strips = [header[-1], *(strip(values, min(room, _WIDEST)) for values in members), ""]
    return [[*(line[i] for i in kept), bars] for line, bars in zip(lines, strips, strict=True)]


def group_cells(stats: Stats, members: Sequence[Sequence[float]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table of groups, that of the total last."""
    header = ["group", "tensors", "values", "mean", "std", "min", "max", "zeros", "nonfinite", "rms of each"]
    rows = []
    for i, values in enumerate(members):
        row = stats._row(i)
        rows.append([row.name, f"{len(values):,}", f"{row.numel:,}", *cells(row)[3:9], strip(values)])
    total = stats.total
    count = sum(map(len, members))
    rows.append(["total", f"{count:,}", f"{total.numel:,}", *cells(total)[3:9], ""])
    return header, rows
