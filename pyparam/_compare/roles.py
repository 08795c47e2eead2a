"""What changed by role: parameters of one name but for its numbers, in one line."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

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
    changed = set(found._changed().tolist())
    rel = found.rel_l2.tolist()
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(found.names):
        groups.setdefault(_NUMBER.sub("*", name), []).append(row)
    made = []
    for name, rows in groups.items():
        own = [rel[row] for row in rows if row in changed]
        if own:
            made.append(Role(name, len(rows), len(own), min(own), max(own)))
    return made
