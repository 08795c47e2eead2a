"""nn.Module."""

from __future__ import annotations

import weakref
from typing import Any

from torch import nn

from pyparam._table import Owner, ParamTable


def accepts(source: object) -> bool:
    return isinstance(source, nn.Module)


def table(source: Any, *, buffers: bool, remove_duplicate: bool) -> ParamTable:
    pairs = list(source.named_parameters(remove_duplicate=remove_duplicate))
    if buffers:
        pairs += source.named_buffers(remove_duplicate=remove_duplicate)
    names = [name for name, _ in pairs]
    root = weakref.ref(source)

    def owners() -> list[Owner]:
        model = root()
        modules = {} if model is None else dict(model.named_modules(remove_duplicate=remove_duplicate))
        found = [modules.get(name.rpartition(".")[0]) for name in names]
        return [None if module is None else weakref.ref(module) for module in found]

    return ParamTable(names, [tensor for _, tensor in pairs], owners)
