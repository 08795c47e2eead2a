"""What changed by role: parameters of one name but for its numbers, in one line."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyparam._base.native import _C
from pyparam._base.words import plain

if TYPE_CHECKING:
    from pyparam._compare.comparison import Comparison

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


@dataclass(frozen=True)
class Role:
    """Pairs that play one role in alike blocks."""

    name: str
    """The names with ``*`` for their numbers."""

    count: int
    changed: int
    least: float
    """Of the changed ones: the smallest and the largest rel. L2."""
    most: float

    def text(self) -> str:
        if not self.changed:
            return f"{plain(self.name)}: {self.count:,} the same"
        span = f"{self.least:.2g}" if self.least == self.most else f"{self.least:.2g} to {self.most:.2g}"
        return f"{plain(self.name)}: {self.changed:,} of {self.count:,} changed, rel. L2 {span}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def roles_of(found: Comparison) -> list[Role]:
    """The roles of a comparison's rows of which one changed, in the order of ``a``."""
    changed = found._changed()
    if not len(changed):
        return []
    names = found.names
    tree = _C.name_tree(list(names))
    known: dict[str, int] = {}
    words = [_NUMBER.sub("*", word) for word in tree.strings]
    alike = tree.alike([known.setdefault(word, len(known)) for word in words], [False] * len(words))
    _, roles, counts = torch.unique(alike, return_inverse=True, return_counts=True)
    own = roles[changed]
    rel = found.rel_l2[changed]
    first = _least(torch.arange(len(names), dtype=torch.int64, device="cpu"), roles, len(counts))
    least, most = _least(rel, own, len(counts)), -_least(-rel, own, len(counts))
    columns = (counts, torch.bincount(own, minlength=len(counts)), least, most, first)
    made = [
        (first, Role(_NUMBER.sub("*", names[first]), count, some, low, high))
        for count, some, low, high, first in zip(*(column.tolist() for column in columns), strict=True)
        if some
    ]
    return [role for _, role in sorted(made, key=lambda pair: pair[0])]


def _least(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Of each group the smallest value; of one without any, the largest of all."""
    return values.max().repeat(count).scatter_reduce_(0, groups, values, "amin")
