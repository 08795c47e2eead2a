"""Optimizers whose parameters were replaced, so that the next step trains what the model holds."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def check_optimizer(operation: str, optimizer: Any) -> None:
    if optimizer is not None and not (hasattr(optimizer, "param_groups") and hasattr(optimizer, "state")):
        raise TypeError(
            f"{operation}: optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )


def mend(optimizer: Any, replaced: Sequence[tuple[Tensor, Tensor]], model: nn.Module) -> None:
    """Takes replaced parameters out of an optimizer, puts in what replaced them where it is missing.

    Their state is dropped: it described values that are given up.
    """
    if optimizer is None or not replaced:
        return
    alive = {id(p) for p in model.parameters()}
    successor = {id(old): new for old, new in replaced if id(old) not in alive}
    _succeed(optimizer, successor, keep_state=False)


def follow(optimizer: Any, renewed: Mapping[int, Tensor]) -> None:
    """Puts the Parameters that took the places of others, by the ids of those, into their groups.

    A state whose tensors fit stays: the place is the same, and so are the moments of what is trained there.
    """
    if optimizer is not None and renewed:
        _succeed(optimizer, renewed, keep_state=True)


def _succeed(optimizer: Any, successor: Mapping[int, Tensor], *, keep_state: bool) -> None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    before = _flattened(optimizer)
    for group in optimizer.param_groups:
        kept: list[Tensor] = []
        names: list[str] = []
        for i, parameter in enumerate(group["params"]):
            new = successor.get(id(parameter), parameter)
            if new is not parameter:
                state = optimizer.state.pop(parameter, None)
                if id(new) in held or not isinstance(new, nn.Parameter):
                    continue
                held.add(id(new))
                if keep_state and state is not None and before is None and new.shape == parameter.shape:
                    optimizer.state[new] = _moved(state, parameter, new)
            kept.append(new)
            names += group.get("param_names", ())[i : i + 1]
        # In place: an optimizer may hold the list itself, as LBFGS does.
        group["params"][:] = kept
        if "param_names" in group:
            group["param_names"][:] = names
    _forget_flattened(optimizer, before)


def join_group(optimizer: Any, old: Tensor, new: Tensor, name: str) -> None:
    """Puts a copy of a parameter beside it, with a copy of its state."""
    if optimizer is None:
        return
    before = _flattened(optimizer)
    for group in optimizer.param_groups:
        for parameter in list(group["params"]):
            if parameter is old:
                group["params"].append(new)
                if "param_names" in group:
                    group["param_names"].append(name)
                if old in optimizer.state and before is None:
                    optimizer.state[new] = copy.deepcopy(optimizer.state[old])
                _forget_flattened(optimizer, before)
                return


def _moved(state: Any, old: Tensor, new: Tensor) -> Any:
    """A parameter's state beside its successor: tensors of its shape go where it is."""
    if not isinstance(state, dict):
        return state
    return {
        key: value.to(new.device) if isinstance(value, Tensor) and value.shape == old.shape else value
        for key, value in state.items()
    }


def _flattened(optimizer: Any) -> list[Tensor] | None:
    """The parameters of an optimizer that keeps its state of all of them as one vector; None of another."""
    if not isinstance(optimizer, torch.optim.LBFGS):
        return None
    return [p for group in optimizer.param_groups for p in group["params"]]


def _forget_flattened(optimizer: Any, before: list[Tensor] | None) -> None:
    """LBFGS keeps directions over all parameters, under the first: of other parameters they are of no use."""
    if before is None:
        return
    after = _flattened(optimizer) or []
    if list(map(id, before)) != list(map(id, after)):
        optimizer.state.clear()
        optimizer._numel_cache = None
