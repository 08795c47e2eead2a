"""Which names of a source are looked at: globs that take them, and globs that leave them out."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Any

from pyparam._base.words import plural
from pyparam._sources import path
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.saved import saved
from pyparam._sources.table import ByName, ParamTable, Pattern, matcher


class Chosen(ByName):
    """A pattern of ``ParamTable.select``: names that any glob of ``select`` matches, or all where there is
    none, but for those that any of ``exclude`` matches."""

    __slots__ = ("words",)

    def __init__(self, select: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        takes = _any_of(select or ("*",))
        leaves = _any_of(exclude)
        super().__init__(re.compile(f"(?!{leaves})(?:{takes})" if exclude else takes).match)
        words = " or ".join(map(repr, select)) if select else "anything"
        self.words = words + (f" but {' and '.join(map(repr, exclude))}" if exclude else "")

    def __repr__(self) -> str:
        return self.words


def _any_of(globs: Sequence[str]) -> str:
    return "|".join(f"(?:{fnmatch.translate(glob)})" for glob in globs)


def chosen_of(source: Any, select: Pattern) -> Checkpoint | ParamTable:
    """What a pattern takes of what a source saves (its parameters and persistent buffers).

    Raises ValueError where it takes nothing.
    """
    if path.accepts(source):
        source = path.open(source)
    by_name = matcher(select)
    if isinstance(source, Checkpoint) and isinstance(by_name, ByName):
        names = [name for name in source if by_name.matches(name)]
        made: Checkpoint | ParamTable = source.picked(names, names)
    else:
        made = saved(source).table
        source, made = made, made.select(select)
    if len(source) and not len(made):
        raise nothing_matches(select, len(source))
    return made


def nothing_matches(select: Pattern, among: int) -> ValueError:
    return ValueError(f"nothing matches {select!r} among {plural(among, 'parameter')}")
