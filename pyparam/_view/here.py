"""What of a distributed model lies on this rank, in words; nothing is communicated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from pyparam._base.words import plural, size
from pyparam._parts.parts import has_parts, is_flat, parts_of
from pyparam._sources import table_of
from pyparam._sources.table import ParamTable


def lines_of(source: Any, *, local: bool) -> Iterator[str]:
    """With ``local``, how much of the wholes is here; always, whose counts are of parts alone."""
    if not isinstance(source, (nn.Module, Mapping, ParamTable)):
        return
    table = table_of(source, values=False)
    if is_flat(table):
        yield "flattened by FullyShardedDataParallel: the counts are of this rank's part of the parameters"
    if local and has_parts(table):
        parts = parts_of("show", table)
        own = parts.locals.tensors
        values = sum(t.numel() for t in own)
        held = sum(t.numel() * t.element_size() for t in own)
        whole = sum(t.numel() * t.element_size() for t in table.tensors)
        every = sum(t.numel() for t in table.tensors)
        yield f"{plural(values, 'value')} of {every:,} here, {size(held)} of {size(whole)}"
