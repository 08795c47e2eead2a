"""Which parameters of a large model are shown together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

# A place in a list: "3" in "layers.3.weight", "1" in "block 1.weight"; but not that of "conv1".
_NUMBER = re.compile(r"(?:^|(?<=[. ]))\d+(?=\.|$)")


@dataclass(frozen=True)
class Group:
    """Rows under one label."""

    label: str
    rows: list[int]


def alike(names: Sequence[str], sizes: Sequence[int], limit: int, rest: str = "all others") -> list[Group]:
    """At most ``limit`` groups: each name by itself where those are few, else names that differ in their
    numbers together, and the smallest of these groups as one."""
    if len(names) <= limit:
        return [Group(name, [i]) for i, name in enumerate(names)]
    found: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        found.setdefault(starred(name), []).append(i)
    groups = [Group(names[rows[0]] if len(rows) == 1 else label, rows) for label, rows in found.items()]
    if len(groups) <= limit:
        return groups
    # The largest, in the model's order.
    weight = [sum(sizes[i] for i in group.rows) for group in groups]
    largest = sorted(range(len(groups)), key=lambda g: (-weight[g], g))[: limit - 1]
    kept = [groups[g] for g in sorted(largest)]
    others = sorted(i for g in set(range(len(groups))) - set(largest) for i in groups[g].rows)
    return [*kept, Group(rest, others)]


def starred(name: str) -> str:
    """A name with its numbers as ``*``: "layers.*.weight"."""
    return _NUMBER.sub("*", name)


def layers(names: Sequence[str], limit: int) -> tuple[list[Group], str]:
    """At most ``limit`` groups by where the names stand, and what one of them is: each parameter, each
    module, or the modules of a level."""
    few = 8
    if len(names) <= few:
        return [Group(name, [i]) for i, name in enumerate(names)], "parameter"
    parts = [name.split(".") for name in names]
    deepest = max(map(len, parts))
    for level in range(deepest - 1, 0, -1):
        found: dict[str, list[int]] = {}
        for i, part in enumerate(parts):
            found.setdefault(".".join(part[: min(level, max(len(part) - 1, 1))]), []).append(i)
        if len(found) <= limit or level == 1:
            break
    else:
        found = {name: [i] for i, name in enumerate(names)}
    groups = [Group(label, rows) for label, rows in found.items()]
    return groups, "layer"
