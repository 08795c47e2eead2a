"""TorchScript modules, from ``torch.jit.script``, ``trace``, ``load`` and ``freeze``.

A loaded module's parameters are plain tensors that require gradients, as PyTorch has them. A frozen module
has neither parameters nor buffers: freezing makes them constants of the code, and PyTorch lists none.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn

from pyparam._base.native import _C
from pyparam._sources import module
from pyparam._sources.table import Owner, ParamTable

_TRAVERSAL = ("named_parameters", "named_buffers", "named_modules", "_named_members")


def accepts(source: object) -> bool:
    return isinstance(source, (torch.jit.ScriptModule, torch._C.ScriptModule))


def table(source: Any, *, buffers: bool, remove_duplicate: bool) -> ParamTable:
    if isinstance(source, torch._C.ScriptModule):
        return ParamTable.from_native(_C.walk_script(source, buffers, remove_duplicate))
    compiled = getattr(source, "_c", None)
    if compiled is None or _overrides(source):
        return module.table(source, buffers=buffers, remove_duplicate=remove_duplicate)
    native = _C.walk_script(compiled, buffers, remove_duplicate)
    root = weakref.ref(source)

    def owners() -> list[Owner]:
        model = root()
        if model is None:
            return [None] * len(native)
        found = {name: weakref.ref(_submodule(model, name)) for name in set(native.owner_names)}
        return [found[name] for name in native.owner_names]

    return ParamTable.from_native(native, owners)


def _submodule(model: nn.Module, name: str) -> nn.Module:
    """As ``get_submodule``, which script modules lack. They hold their children, so a reference lasts."""
    for key in name.split(".") if name else ():
        model = model._modules[key]  # type: ignore[assignment]
    return model


def _overrides(source: nn.Module) -> bool:
    """Whether a user's class has its own idea of what its parameters are."""
    cls = type(source)
    return any(getattr(cls, name) is not getattr(nn.Module, name) for name in _TRAVERSAL)
