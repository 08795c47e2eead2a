"""nn.Module: one native walk; a class with traversal methods of its own is asked through them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from pyparam._base.native import _C
from pyparam._sources import overrides
from pyparam._sources.table import Owner, ParamTable


def accepts(source: object) -> bool:
    return isinstance(source, nn.Module)


def table(source: Any, *, buffers: bool, remove_duplicate: bool, owners: bool = False) -> ParamTable:
    """With ``owners``, the owning modules are what the walk saw; without, they are looked up by name when
    asked for, which spares a bulk verb the weak references."""
    walked = _C.walk_module(source, buffers, remove_duplicate, owners)
    if walked is None:
        return _asked(source, buffers, remove_duplicate)
    native, references = walked
    return ParamTable.from_native(native, references) if owners else of_native(source, native)


def of_native(source: nn.Module, native: _C.ParamTable) -> ParamTable:
    """The table of a walk that gave no owners."""
    root = weakref.ref(source)
    # Refers to the native table alone: a table in a cycle would keep its tensors until the collector runs.
    return ParamTable.from_native(native, lambda: _owners_by_name(root(), native.names))


def _asked(source: nn.Module, buffers: bool, remove_duplicate: bool) -> ParamTable:
    pairs: list[tuple[str, Tensor]] = []
    for method in ["named_parameters", *(["named_buffers"] if buffers else [])]:
        pairs += _call(source, method, remove_duplicate)
    names = [name for name, _ in pairs]
    root = weakref.ref(source)
    return ParamTable(names, [tensor for _, tensor in pairs], lambda: _owners_by_name(root(), names))


def _call(source: nn.Module, method: str, remove_duplicate: bool) -> Iterable[tuple[str, Tensor]]:
    listing = getattr(source, method)
    given = (
        {}
        if remove_duplicate or not overrides.takes(listing, "remove_duplicate")
        else {"remove_duplicate": False}
    )
    pairs: Iterable[tuple[str, Tensor]] = listing(**given)
    return pairs


def _owners_by_name(model: nn.Module | None, names: list[str]) -> list[Owner]:
    modules = {} if model is None else dict(_C.named_modules(model, remove_duplicate=False))
    found = [modules.get(name.rpartition(".")[0]) for name in names]
    return [None if module is None else weakref.ref(module) for module in found]
