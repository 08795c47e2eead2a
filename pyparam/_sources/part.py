"""One part of a checkpoint: what lies below a prefix of nested keys, or the model, under its own names."""

from __future__ import annotations

from typing import Any

from torch import nn

from pyparam._base.words import plain
from pyparam._sources import path, table_of
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.contents import Section, sections_of
from pyparam._sources.table import ParamTable


def sections(source: Any, names: list[str]) -> list[Section]:
    """What a source is made of; a module is all model."""
    extras = source.extras if isinstance(source, Checkpoint) else None
    return sections_of(names, saved=not isinstance(source, nn.Module), extras=extras)


def part_of(source: Any, part: str) -> Checkpoint | ParamTable:
    """A part of a source, whose names are without what the part's begin with.

    Args:
        source: any source; a path is opened.
        part: a prefix of nested keys (``"state_dict"``, ``"model.encoder"``), or else ``"model"``,
            ``"average"``, ``"optimizer"`` or ``"other"``, whatever their keys are.

    Raises:
        ValueError: where there is no such part, with those there are.
    """
    if path.accepts(source):
        source = path.open(source)
    is_file = isinstance(source, Checkpoint)
    table = None if is_file else table_of(source, buffers=True, remove_duplicate=False)
    names = list(source) if table is None else table.names
    prefix = f"{part.removesuffix('.')}."
    rows = [row for row, name in enumerate(names) if name.startswith(prefix)]
    if not rows:
        known = sections(source, names)
        found = [section for section in known if section.kind == part]
        if not found:
            if not known:
                raise ValueError(f"there is no part {part!r}, and no tensor at all")
            there = ", ".join(f"{s.kind} ({plain(s.prefix) or 'no prefix'})" for s in known)
            raise ValueError(f"there is no part {part!r}; there is: {there}")
        rows = [row for section in found for row in section.rows]
        prefix = found[0].prefix if len(found) == 1 else ""
    short = [names[row].removeprefix(prefix) for row in rows]
    if table is None:
        return source.picked([names[row] for row in rows], short, prefix)  # type: ignore[no-any-return]
    chosen = table._take(rows)
    return ParamTable(short, chosen.tensors, chosen._owners)
