"""optimizer_state: an optimizer's state under the names of a model's parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from pyparam._sources import path, table_of
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.optimizer import (
    is_parameter,
    is_state,
    names_of_state,
    table_of_optimizer,
    table_of_state,
)
from pyparam._sources.table import ParamTable


def optimizer_state(optimizer: Any, model: Any = None) -> ParamTable:
    """An optimizer's moments, steps and master weights as a table named after the model's parameters.

    ``"layers.0.weight.exp_avg_sq"``: a source like any other, for ``measure``, ``show``, ``compare``,
    ``report`` and ``findings``. An optimizer is a source by itself too, with the names that it was given
    (``Adam(model.named_parameters())``), or the numbers of its ``state_dict``.

    ::

        pyparam.measure(pyparam.optimizer_state(optimizer, model)).sort("max_abs")
        pyparam.compare(pyparam.optimizer_state("before.pt"), pyparam.optimizer_state("after.pt"))

    Args:
        optimizer: a ``torch.optim.Optimizer``, a wrapper with one as its ``optimizer``, an optimizer's
            ``state_dict()``, or a training checkpoint, in memory or by its path, with one such dict in it.
        model: whose names to use. Of a live optimizer parameters are told by identity; of a saved one by the
            names that it saved, else by their order, which is checked against shapes. Without it, the model's
            weights in the same checkpoint are tried.

    Raises:
        TypeError: for what is no optimizer, and holds none.
        ValueError: where the order of a saved optimizer cannot be the model's, or a checkpoint holds several
            optimizers.
    """
    held = _optimizer_of(optimizer)
    if held is not None:
        names = {} if model is None else {id(tensor): name for name, tensor in table_of(model)}
        return table_of_optimizer(held, names)
    source = path.open(optimizer) if path.accepts(optimizer) else optimizer
    states = list(_saved_in(source))
    if not states:
        raise TypeError(
            "optimizer_state: expected an optimizer, its state_dict() or a checkpoint that holds one, got a "
            f"{type(source).__name__}"
        )
    if len(states) > 1:
        raise ValueError(
            f"optimizer_state: the checkpoint holds {len(states)} optimizers "
            f"({', '.join(repr(saved.prefix) for saved in states)}); pass the one that is meant"
        )
    (saved,) = states
    if model is not None:
        return table_of_state(saved.state, names_of_state(saved.state, _pairs(table_of(model))))
    return table_of_state(saved.state, _names_beside(source, saved))


def names_in(source: Any) -> dict[str, str]:
    """What ``"optimizer.state.3"`` in a training checkpoint is the state of, where that is known."""
    called: dict[str, str] = {}
    for saved in _saved_in(source):
        start = f"{saved.prefix}.state" if saved.prefix else "state"
        called |= {f"{start}.{number}": name for number, name in _names_beside(source, saved).items()}
    return called


class _Saved(NamedTuple):
    prefix: str
    state: Mapping[Any, Any]


def _optimizer_of(value: Any) -> Optimizer | None:
    for _ in range(8):
        if isinstance(value, Optimizer):
            return value
        value = getattr(value, "optimizer", None)
    return None


def _saved_in(source: Any) -> Iterator[_Saved]:
    """What ``optimizer.state_dict()`` gave, at most two levels down."""
    if isinstance(source, Checkpoint):
        for key, groups in source.extras.items():
            if key.rpartition(".")[2] == "param_groups" and isinstance(groups, (list, tuple)):
                yield _from_file(source, key.rpartition(".")[0], groups)
    elif is_state(source):
        yield _Saved("", source)
    elif isinstance(source, Mapping):
        for key, inner in source.items():
            if is_state(inner):
                yield _Saved(str(key), inner)
            elif isinstance(inner, (list, tuple)):
                yield from (_Saved(f"{key}.{i}", one) for i, one in enumerate(inner) if is_state(one))


def _from_file(source: Checkpoint, prefix: str, groups: Any) -> _Saved:
    start = f"{prefix}.state." if prefix else "state."
    state: dict[Any, dict[str, Tensor]] = {}
    for name in source:
        if name.startswith(start):
            number, _, key = name.removeprefix(start).partition(".")
            state.setdefault(int(number) if number.isdecimal() else number, {})[key] = source[name]
    return _Saved(prefix, {"state": state, "param_groups": groups})


def _names_beside(source: Any, saved: _Saved) -> dict[Any, str]:
    """By the names that it saved, or by the order of the weights that lie in the same checkpoint."""
    called = names_of_state(saved.state, ())
    if called or not isinstance(source, Mapping) or is_state(source):
        return called
    for pairs in _models_beside(source, saved.prefix):
        try:
            called = names_of_state(saved.state, pairs)
        except ValueError:
            continue  # not the model, or not in the optimizer's order
        if called:
            return called
    return {}


def _models_beside(source: Mapping[Any, Any], prefix: str) -> Iterator[list[tuple[str, Any]]]:
    if isinstance(source, Checkpoint):
        parts: dict[str, list[tuple[str, Any]]] = {}
        for name in source:
            first, _, rest = name.partition(".")
            if rest and not name.startswith(f"{prefix}.") and is_parameter(name):
                parts.setdefault(first, []).append((rest, source.tensor_info(name).shape))
        yield from parts.values()
        return
    for beside in source.values():
        if isinstance(beside, Mapping) and not is_state(beside):
            try:
                yield _pairs((name, tensor) for name, tensor in table_of(beside) if is_parameter(name))
            except (TypeError, ValueError):
                continue  # no tensors in it


def _pairs(table: Any) -> list[tuple[str, Any]]:
    return [(name, tuple(tensor.shape)) for name, tensor in table]
