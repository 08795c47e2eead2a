"""An optimizer's state as a source: moments, steps and master weights, by the names of their parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pyparam._sources import nested
from pyparam._sources.table import ParamTable

_RUNNING = re.compile(r"(^|\.)(running_mean|running_var|num_batches_tracked)$")


def accepts(source: object) -> bool:
    return isinstance(source, Optimizer)


def table(source: Any, *, buffers: bool, remove_duplicate: bool) -> ParamTable:
    return table_of_optimizer(source, {})


def table_of_optimizer(optimizer: Optimizer, names: Mapping[int, str]) -> ParamTable:
    """The state's tensors, named after their parameters: by ``names`` (of ``id``), else as the optimizer was
    given them (``param_names``), else by the numbers that its ``state_dict`` uses.
    """
    called: dict[int, str] = {}
    number = 0
    for group in optimizer.param_groups:
        given = group.get("param_names") or ()
        for position, parameter in enumerate(group["params"]):
            name = names.get(id(parameter)) or (given[position] if position < len(given) else str(number))
            called[id(parameter)] = name
            number += 1
    # By parameter, not in the order in which they got their state.
    states = {id(parameter): state for parameter, state in optimizer.state.items()}
    return _table((name, states[key]) for key, name in called.items() if key in states)


def table_of_state(saved: Mapping[Any, Any], names: Mapping[Any, str]) -> ParamTable:
    """The same of what ``optimizer.state_dict()`` gave, with names of its numbers."""
    return _table((names.get(number, str(number)), state) for number, state in saved["state"].items())


def names_of_state(saved: Mapping[Any, Any], parameters: Sequence[tuple[str, Any]]) -> dict[Any, str]:
    """Number to name: as the optimizer saved them, else by the order of a model's (name, shape) pairs.

    Raises ValueError where that order cannot be the optimizer's.
    """
    called: dict[Any, str] = {}
    for group in saved["param_groups"]:
        called |= dict(zip(group["params"], group.get("param_names") or (), strict=False))
    if called or not parameters:
        return called
    groups = saved["param_groups"]
    numbers = [number for group in groups for number in group["params"]]
    if len(groups) > 1:
        raise ValueError(
            f"optimizer_state: the optimizer has {len(groups)} groups and saved no param_names, so its order "
            "need not be the model's; pass the optimizer itself, or make it of named_parameters()"
        )
    if len(numbers) != len(parameters):
        raise ValueError(
            f"optimizer_state: the optimizer has {len(numbers):,} parameters and the model "
            f"{len(parameters):,}"
        )
    for number, (name, shape) in zip(numbers, parameters, strict=True):
        for key, value in saved["state"].get(number, {}).items():
            if isinstance(value, Tensor) and value.dim() and tuple(value.shape) != tuple(shape):
                raise ValueError(
                    f"optimizer_state: {key!r} of parameter {number} is {list(value.shape)} and {name!r} is "
                    f"{list(shape)}: the optimizer's order is not the model's"
                )
    return dict(zip(numbers, (name for name, _ in parameters), strict=True))


def is_state(value: object) -> bool:
    """Whether this is what ``optimizer.state_dict()`` gives."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("state"), Mapping)
        and isinstance(value.get("param_groups"), (list, tuple))
    )


def is_parameter(name: str) -> bool:
    """Whether a name of a state dict is a parameter's and not that of a layer's running statistics."""
    return _RUNNING.search(name) is None


def _table(states: Iterator[tuple[str, Mapping[str, Any]]]) -> ParamTable:
    found: dict[str, Tensor] = {}
    for name, state in states:
        if isinstance(state, Mapping):
            found |= {f"{name}.{key}": value for key, value in nested.flatten(state).items()}
    return ParamTable(list(found), list(found.values()))
