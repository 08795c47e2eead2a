"""``measure`` of what can be measured: an entry without values that can be read costs its row."""

from __future__ import annotations

from typing import Any

import torch

from pyparam._measure.measure import measure_some, measure_strictly
from pyparam._measure.stats import Stats
from pyparam._sources import table_of
from pyparam._sources.chosen import nothing_matches
from pyparam._sources.quantized import Logical, quantized
from pyparam._sources.table import ParamTable, Pattern


def measure_readable(
    source: Any, *, select: Pattern | None = None, **options: Any
) -> tuple[Stats, dict[str, str]]:
    """What ``measure`` gives of a source, and the reason of each entry that it does not take.

    ``select`` measures only what ``ParamTable.select`` takes. Raises what ``measure`` raises that is about no
    entry, and ValueError where nothing matches.
    """
    found, _ = measure_some(source if select is None else _selected(table_of(source), select), **options)
    return found, found.unread


def measure_dequantized(
    source: Any, *, select: Pattern | None = None, **options: Any
) -> tuple[Stats, dict[str, str], list[Logical], list[str]]:
    """``measure_readable`` with quantized parameters by the values they stand for, one at a time in memory.

    Also gives those parameters, and the names of packed weights whose scheme is not known.
    """
    found = quantized(table_of(source))
    chosen = found.logical
    if select is not None:
        names = (
            ParamTable(
                [one.name for one in chosen],
                [torch.empty(0, dtype=torch.float32, device="cpu")] * len(chosen),
            )
            .select(select)
            .names
        )
        chosen = [one for one in chosen if one.name in set(names)]
    rest = found.rest if select is None or not chosen else found.rest.select(select)
    if select is not None and not chosen:
        rest = _selected(rest, select)
    stats, _ = measure_some(rest, **options)
    unread = stats.unread
    for one in chosen:
        stats = stats + measure_strictly(ParamTable([one.name], [one.values()]), **options)
    return stats, unread, chosen, found.raw


def _selected(table: ParamTable, select: Pattern | None) -> ParamTable:
    chosen = table if select is None else table.select(select)
    if select is not None and len(table) and not len(chosen):
        raise nothing_matches(select, len(table))
    return chosen
