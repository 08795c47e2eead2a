"""Tables, and whatever can give one: an object with ``__pyparam_table__(*, buffers, remove_duplicate)``."""

from __future__ import annotations

from typing import Any

from pyparam._base.words import a_kind
from pyparam._sources.table import ParamTable


def accepts(source: object) -> bool:
    if isinstance(source, ParamTable):
        return True
    # Looked up on the type, as Python does for its own protocols: a class is not a source, nor is a mock's
    # attribute.
    return hasattr(type(source), "__pyparam_table__")


def table(source: Any, *, buffers: bool, remove_duplicate: bool) -> ParamTable:
    if isinstance(source, ParamTable):
        return source
    made = source.__pyparam_table__(buffers=buffers, remove_duplicate=remove_duplicate)
    if not isinstance(made, ParamTable):
        raise TypeError(
            f"{type(source).__name__}.__pyparam_table__ must return a ParamTable, it returned {a_kind(made)}"
        )
    return made
