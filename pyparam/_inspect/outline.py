"""Makes native outlines, the trees that an Inspector's repr and ``show`` print."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from pyparam._base.native import _C
from pyparam._sources.table import ParamTable


def outline_of_module(module: nn.Module) -> _C.Outline:
    """Reads a module and everything below it once. Costs no Python call a module, except for TorchScript."""
    return _C.outline_of_module(module, _type_label, module_label)


def outline_of_table(table: ParamTable, buffers: Collection[str] = ()) -> _C.Outline:
    """The tree that the names of a table describe; ``buffers`` are the names of its buffers."""
    names = set(buffers)
    is_buffer = [name in names for name in table.names] if names else []
    return _C.outline_of_table(table._native, is_buffer)


def _type_label(cls: type) -> str | None:
    """What modules of a class are called, or None where each has a name of its own."""
    if issubclass(cls, torch.jit.ScriptModule):
        return None
    if getattr(cls, "_get_name", None) is not nn.Module._get_name and issubclass(cls, nn.Module):
        return None
    return cls.__name__


def module_label(module: nn.Module) -> str:
    """What a module is called: its class's name, for TorchScript the name of the class it came from."""
    if isinstance(module, torch.jit.ScriptModule):
        # A module that was frozen or made by hand can lack the name of the class it came from.
        return str(getattr(module, "original_name", None) or type(module).__name__)
    return str(module._get_name())  # type: ignore[no-untyped-call]
