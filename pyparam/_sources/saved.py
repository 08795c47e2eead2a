"""What of a source a checkpoint would hold, and whether it is one."""

from __future__ import annotations

from typing import Any

from pyparam._sources import checkpoint, path, table_of
from pyparam._sources.table import ParamTable

__all__ = ["is_on_disk", "saved_table"]


def saved_table(source: Any) -> ParamTable:
    """The tensors that ``state_dict()`` of a module would list, and of any other source all that it has.

    So a model and its checkpoint have the same names: parameters and persistent buffers, tied ones under each
    of their names. Buffers come after parameters. A table is taken as it is.
    """
    table = table_of(source, buffers=True, remove_duplicate=False)
    if table is source or table._owners is None:
        return table
    if len(table) == len(table_of(source, remove_duplicate=False)):
        return table  # no buffers
    kept = [
        i
        for i, (owner, attribute) in enumerate(zip(table.owners, table.attributes, strict=True))
        if attribute not in getattr(owner, "_non_persistent_buffers_set", ())
    ]
    return table if len(kept) == len(table) else table._take(kept)


def is_on_disk(source: object) -> bool:
    """Whether the tensors lie in mapped files, whose pages can be dropped once they are read."""
    return path.accepts(source) or checkpoint.accepts(source)
