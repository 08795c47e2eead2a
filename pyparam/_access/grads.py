"""zero_grad and requires_grad_: what autograd keeps of each parameter, set for a whole model at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pyparam._base.errors import named_errors
from pyparam._base.native import _C
from pyparam._sources import overrides, table_of
from pyparam._sources.table import ParamTable, Pattern

__all__ = ["requires_grad_", "zero_grad"]


def zero_grad(source: Any, set_to_none: bool = True) -> None:
    """Resets the gradients of all parameters, as ``nn.Module.zero_grad`` does.

    Args:
        source: a model, or anything else with parameters.
        set_to_none: drops the gradients; otherwise they are detached and filled with zeros.

    Raises:
        TypeError: for what is no source.
    """
    if isinstance(source, nn.Module):
        if overrides.is_own(source, "zero_grad"):
            source.zero_grad(set_to_none)
        elif not zero_plainly(source, set_to_none):
            overrides.TORCHS_OWN["zero_grad"](source, set_to_none)
        return
    for _, tensor in table_of(source):
        if tensor.grad is None:
            continue
        if set_to_none:
            tensor.grad = None
            continue
        if tensor.grad.grad_fn is not None:
            tensor.grad.detach_()
        else:
            tensor.grad.requires_grad_(False)
        with torch.no_grad():
            tensor.grad.zero_()


def zero_plainly(model: nn.Module, set_to_none: bool) -> bool:
    """Resets the gradients of a model in which nothing needs Python code; False where PyTorch has to."""
    if overrides.is_own(model, "parameters") or getattr(model, "_is_replica", False):
        return False
    return _C.zero_grad(model, bool(set_to_none))


def requires_grad_(source: Any, pattern: Pattern = "*", flag: bool = True) -> ParamTable:
    """Says of parameters whether autograd shall compute gradients for them: freezes a part of a model.

    Args:
        source: a model, or anything else with parameters.
        pattern: which of them, as ``ParamTable.select`` takes it: ``"encoder.*"``, a regular expression, a
            predicate ``(name, tensor)``, a list of these.
        flag: False freezes them.

    Returns:
        Those that match.

    Raises:
        TypeError: for another pattern.
        ValueError: where nothing matches; for a parameter that is no leaf, that has no floating-point or
            complex dtype, or that is an inference tensor. Nothing is changed.
    """
    table = table_of(source)
    chosen = table if pattern == "*" else table.select(pattern)
    if len(table) and not len(chosen):
        raise ValueError(f"requires_grad_: none of {len(table)} parameters matches {pattern!r}")
    with named_errors(chosen):
        _C.set_requires_grad(chosen._native, bool(flag))
    return chosen
