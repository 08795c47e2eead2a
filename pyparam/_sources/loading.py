"""``nn.Module.load_state_dict``, natively where nothing but names and values is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.__future__ import get_swap_module_params_on_conversion
from torch.nn.modules import module as _torch_module

from pyparam._base.native import _C


def loaded(
    model: nn.Module, state: Mapping[str, Any], *, strict: bool, assign: bool
) -> tuple[list[str], list[str]] | None:
    """Loads as PyTorch's own does, and gives missing and unexpected keys.

    None, with nothing written, where that is for PyTorch's own to do.
    """
    if get_swap_module_params_on_conversion() or (assign and _minds_registration()):
        return None
    return _C.load_state_dict(model, state, strict, assign)


def _minds_registration() -> bool:
    """Whether somebody is told of parameters and buffers that modules are given."""
    return any(
        getattr(_torch_module, f"_global_{kind}_registration_hooks", True) for kind in ("parameter", "buffer")
    )
