"""State dicts and nested mappings. Leaves that are no tensors (a step count, a version) are passed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from pyparam._sources import nested
from pyparam._sources.table import ParamTable


def accepts(source: object) -> bool:
    return isinstance(source, Mapping)


def table(source: Any, *, buffers: bool, remove_duplicate: bool) -> ParamTable:
    found = nested.flatten(source, _check_leaf)
    return ParamTable(list(found), list(found.values()))


def _check_leaf(name: str, value: Any) -> None:
    """Refuses what holds parameters in a form that would silently be left out."""
    if isinstance(value, nn.Module):
        raise TypeError(
            f"entry {name!r} is a module ({type(value).__name__}): pass the module, or its state_dict()"
        )
    if isinstance(value, (Mapping, list, tuple)):
        return
    if type(value).__module__ == "numpy" and type(value).__name__ == "ndarray":
        raise TypeError(f"entry {name!r} is a numpy array: wrap it with torch.from_numpy")
