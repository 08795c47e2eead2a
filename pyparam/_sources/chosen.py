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
from pyparam._sources.table import ByName, ParamTable, Pattern, matcher, taken


class Chosen(ByName):
    """A pattern of ``ParamTable.select``: names that any glob of ``select`` matches, or all where there is
    none, but for those that any of ``exclude`` matches."""

    __slots__ = ("_leaves", "words")

    def __init__(self, select: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        takes = _any_of(select or ("*",))
        leaves = _any_of(exclude)
        super().__init__(re.compile(f"(?!{leaves})(?:{takes})" if exclude else takes).match)
        self._leaves = re.compile(leaves).match if exclude else None
        words = " or ".join(map(repr, select)) if select else "anything"
        self.words = words + (f" but {' and '.join(map(repr, exclude))}" if exclude else "")

    def __repr__(self) -> str:
        return self.words

    def takes(self, *names: str) -> bool:
        return super().takes(*names) and (self._leaves is None or not any(map(self._leaves, names)))


def _any_of(globs: Sequence[str]) -> str:
    return "|".join(f"(?:{fnmatch.translate(glob)})" for glob in globs)


def chosen_of(source: Any, select: Pattern) -> Checkpoint | ParamTable:
    """What a pattern takes of what a source saves (its parameters and persistent buffers).

    Raises ValueError where it takes nothing.
    """
    if path.accepts(source):
        source = path.open(source)
    made = picked(source, select)
    return selected(saved(source).table, select) if made is None else made


def picked(source: Any, select: Pattern, names: Sequence[str] | None = None) -> Checkpoint | None:
    """What a pattern of names takes of a checkpoint, or of these names of it, with no tensor asked for.

    None for another source, and for a pattern that looks at tensors. ValueError where it takes nothing.
    """
    wanted = matcher(select)
    if not isinstance(source, Checkpoint) or not isinstance(wanted, ByName):
        return None
    names = list(source) if names is None else names
    kept = [names[i] for i in taken(names, wanted)]
    if names and not kept:
        raise nothing_matches(select, len(names))
    return source.picked(kept, kept)


def selected(table: ParamTable, select: Pattern) -> ParamTable:
    """``table.select(select)``. Raises ValueError where that takes nothing."""
    made = table.select(select)
    if len(table) and not len(made):
        raise nothing_matches(select, len(table))
    return made


def nothing_matches(select: Pattern, among: int) -> ValueError:
    return ValueError(f"nothing matches {select!r} among {plural(among, 'parameter')}")
