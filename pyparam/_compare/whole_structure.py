"""What is transposed, reshaped or of another structure where parameters lie on several ranks.

Names and shapes say what to look at, the same on all ranks; what is looked at is brought whole to each of
them, one parameter at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pyparam._compare.alike import may_move, moved, same
from pyparam._compare.comparison import Comparison
from pyparam._compare.structure import Restructured, relative_distance, restructured
from pyparam._parts.exchange import minimum, ordered, unordered
from pyparam._parts.meeting import Meeting
from pyparam._parts.parts import Share, has_parts, local_of, parts_of, replicated
from pyparam._parts.place import dtensor_type
from pyparam._sources.stand_in import Values
from pyparam._sources.table import ParamTable


class _Wholes(Values):
    """A table's tensors by name, brought from all ranks that have parts of them: all must ask."""

    def __getitem__(self, name: str) -> Tensor:
        tensor = super().__getitem__(name).detach()
        kind = dtensor_type()
        if kind is None or not isinstance(tensor, kind):
            return tensor
        with torch.no_grad():
            return local_of(replicated(tensor))


def moved_whole(
    comparison: Comparison, table_a: ParamTable, table_b: ParamTable, even: Sequence[str]
) -> dict[str, str]:
    """Which pairs are transposed, permuted or reshaped, in words by name. ``even`` are the pairs of one shape
    whose sums of squares are the same, as those of a matrix and its transpose are."""
    a, b = _Wholes(table_a), _Wholes(table_b)
    changed = set(comparison.changed()) - set(comparison.dtype_changed)
    names = [name for name in comparison.shape_changed if may_move(a.layout(name), b.layout(name))]
    names += [name for name in even if name in changed and _is_square(a.layout(name))]
    if not names:
        return {}
    _meet(table_a, table_b, ("moved", names))
    told = {}
    for name in names:
        one, other = a[name], b[name]
        if one.shape != other.shape:
            words = moved(one, other)
        else:
            words = "a transposed" if same(one.t(), other) else ""
        if words:
            told[name] = words
    return told


def structure_whole(comparison: Comparison, a: ParamTable, b: ParamTable) -> list[Restructured]:
    """``restructured`` of names that one side alone has."""
    if not (comparison.missing or comparison.unexpected):
        return []
    groups = _meet(a, b, ("structure", comparison.missing, comparison.unexpected))
    row = torch.zeros(1, dtype=torch.int64, device="cpu")
    shares = [Share(group, row) for group in groups]

    def agreed(parts: Iterator[Tensor], wholes: Iterator[Tensor]) -> float:
        # What it comes to decides what is looked at next. To the last pair: other ranks bring it too.
        found = relative_distance(parts, wholes, patient=True)
        found = math.inf if math.isnan(found) else found
        key = ordered(torch.tensor([[found]], dtype=torch.float64, device="cpu"))
        return float(unordered(minimum(shares, key)))

    return restructured(comparison.missing, comparison.unexpected, _Wholes(a), _Wholes(b), agreed)


def _is_square(tensor: Tensor) -> bool:
    return tensor.dim() == 2 and tensor.shape[0] == tensor.shape[1]


def _meet(a: ParamTable, b: ParamTable, about: object) -> list[Any]:
    """The groups of both sides, whose ranks agree on what they are about to look at."""
    groups: dict[Any, None] = {}
    for table in (a, b):
        if not has_parts(table):
            continue
        parts = parts_of("compare", table)
        with Meeting("compare", parts, about):
            pass
        groups.update(dict.fromkeys(share.group for share in (*parts.splits, *parts.repeats)))
    return list(groups)
