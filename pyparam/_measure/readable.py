"""``measure`` of what can be measured: an entry without values that can be read costs its row."""

from __future__ import annotations

from typing import Any

import torch

from pyparam._measure.measure import measure_some, measure_strictly
from pyparam._measure.stats import Stats
from pyparam._sources import path, table_of
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.chosen import nothing_matches, picked, selected
from pyparam._sources.gguf import GGUFCheckpoint
from pyparam._sources.quantized import Logical, quantized
from pyparam._sources.stand_in import Untold
from pyparam._sources.table import ParamTable, Pattern


def measure_readable(
    source: Any, *, select: Pattern | None = None, **options: Any
) -> tuple[Stats, dict[str, str]]:
    """What ``measure`` gives of a source, and the reason of each entry that it does not take.

    ``select`` measures only what ``ParamTable.select`` takes. Raises what ``measure`` raises that is about no
    entry, and ValueError where nothing matches.
    """
    if path.accepts(source):
        source = path.open(source)
    found, _ = measure_some(source if select is None else _selected(source, select), **options)
    return found, found.unread


def measure_dequantized(
    source: Any, *, select: Pattern | None = None, **options: Any
) -> tuple[Stats, dict[str, str], list[Logical], list[str]]:
    """``measure_readable`` with quantized parameters by the values they stand for, one at a time in memory.

    Also gives those parameters, and the names of packed weights whose scheme is not known.
    """
    opened = path.accepts(source)
    if opened:
        source = path.open(source)
    if isinstance(source, GGUFCheckpoint):  # which gives values, of all its types
        return *measure_readable(source, select=select, **options), [], []
    found = quantized(table_of(source, values=False), source)
    chosen, rest = found.logical, found.rest.names
    if select is not None:
        names = set(_matching([one.name for one in chosen], select))
        chosen = [one for one in chosen if one.name in names]
        rest = found.rest.select(select).names
        if not (chosen or rest) and (found.logical or len(found.rest)):
            raise nothing_matches(select, len(found.rest))
    # A checkpoint's are read in a stream, as those of any file.
    kept = set(rest)
    rows = [row for row, name in enumerate(found.rest.names) if name in kept]
    others = source.picked(rest, rest) if isinstance(source, Checkpoint) else found.rest._take(rows)
    stats, _ = measure_some(others, **options)
    unread = stats.unread
    for one in chosen:
        try:
            value = one.values()
        except Untold as error:
            unread[one.name] = str(error)
            continue
        stats = stats + measure_strictly(ParamTable([one.name], [value]), **options)
        del value
        if opened:
            for name in one.stored:
                source.release(name)
    return stats, unread, chosen, found.raw


def _selected(source: Any, select: Pattern) -> Checkpoint | ParamTable:
    """What of a source matches; of a checkpoint, unless its tensors are asked for, without holding it."""
    names = source._listed(buffers=False, remove_duplicate=True) if isinstance(source, Checkpoint) else None
    made = picked(source, select, names)
    return selected(table_of(source), select) if made is None else made


def _matching(names: list[str], select: Pattern) -> list[str]:
    nothing = torch.empty(0, dtype=torch.float32, device="cpu")
    return ParamTable(names, [nothing] * len(names)).select(select).names
