"""The names of a table as a tree of few words, and rows that play one role in alike blocks."""

from __future__ import annotations

import re
from functools import cached_property

import torch
from torch import Tensor

from pyparam._base.native import _C
from pyparam._findings.families import BARE, INDICES, NUMBERS, Family, family_key, role_key
from pyparam._findings.numbers import numbers
from pyparam._sources.table import ParamTable

VERY_MANY = 1 << 17
"""Rows, whose columns take megabytes each: what was freed is given back before more is made."""


class Named:
    """What the names of a table say, with an answer for each role instead of one for each name.

    A word such as "experts" is stored once, however many names hold it; what is asked of names by a pattern
    is asked of one of each role.
    """

    def __init__(self, table: ParamTable) -> None:
        self.names = table.names
        self.tree = table._name_tree()

    @cached_property
    def words(self) -> list[str]:
        """The parts of names, in the order in which they are first met."""
        return self.tree.strings

    @property
    def roles(self) -> Tensor:
        """int64 over the rows: equal where ``role_key`` is."""
        return self._alike(INDICES)

    @property
    def families(self) -> Tensor:
        """int64 over the rows: equal where ``family_key`` is."""
        return self._alike(NUMBERS)

    def _alike(self, numbered: re.Pattern[str]) -> Tensor:
        known: dict[str, int] = {}
        classes = [known.setdefault(numbered.sub("#", word), len(known)) for word in self.words]
        found = self.tree.alike(classes, [BARE.fullmatch(word) is not None for word in self.words])
        if len(self.names) >= VERY_MANY:
            _C.trim_memory()
        return found

    def where(self, pattern: re.Pattern[str]) -> Tensor:
        """Bools over the rows: whether a pattern, to which indices of blocks say nothing, is in a name."""
        found = [pattern.search(self.names[row]) is not None for row in self._first_of_role]
        return torch.tensor(found, dtype=torch.bool, device="cpu")[self._role_place]

    @cached_property
    def _role_place(self) -> Tensor:
        return places(self.roles)

    @cached_property
    def _first_of_role(self) -> list[int]:
        return first_rows(self._role_place).tolist()

    def role_families(self, rows: Tensor, shapes: Tensor) -> list[Family]:
        """Those of some rows that have one role and, by number, one shape."""
        found = grouped(rows, self._role_place, shapes)
        return [Family(role_key(self.names[some[0]]), some) for some in found]

    def numbered_families(self, rows: Tensor, shapes: Tensor) -> list[Family]:
        """Those of some rows that have one name but for its numbers and one shape."""
        found = grouped(rows, self.families, shapes)
        return [Family(family_key(self.names[some[0]]), some) for some in found]


def places(column: Tensor) -> Tensor:
    """The numbers of a column as numbers from 0 on without gaps."""
    most = int(column.max()) + 1 if len(column) else 0
    if 0 < most <= 8 * len(column) and int(column.min()) >= 0:
        there = torch.zeros(most, dtype=torch.bool, device="cpu")
        there[column] = True
        return (there.cumsum(0) - 1)[column]
    found: Tensor = torch.unique(column, return_inverse=True)[1]  # which sorts
    return found


def first_rows(column: Tensor) -> Tensor:
    """Of a column of numbers from 0 on without gaps, the first row of each."""
    count = int(column.max()) + 1 if len(column) else 0
    rows = torch.arange(len(column), dtype=torch.int64, device="cpu")
    none = torch.full((count,), len(column), dtype=torch.int64, device="cpu")
    return none.scatter_reduce(0, column, rows, "amin")


def grouped(rows: Tensor, first: Tensor, second: Tensor) -> list[memoryview[int]]:
    """Rows that agree in two columns: those that do in order, and the groups by their first."""
    if not len(rows):
        return []
    keys = first[rows]
    keys *= int(second.max()) + 1
    keys += second[rows]
    place = places(keys)
    del keys  # of very many rows each of these takes megabytes
    rank = torch.empty_like(place[: int(place.max()) + 1])
    order = first_rows(place).argsort()
    rank[order] = torch.arange(len(rank), dtype=torch.int64, device="cpu")
    place = rank[place]
    ordered = numbers(rows[place.int().sort(stable=True).indices])
    ends = torch.bincount(place).cumsum(0).tolist()
    return [ordered[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
