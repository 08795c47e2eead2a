"""Stand-ins: what a table lists where a value is made when it is asked for, and held by nobody else.

A stand-in is a tensor on the meta device that knows how its value is made. So a table of them costs what its
names cost, goes through everything that changes names or chooses rows, and whoever forgets to ask for a value
gets an error and no figures.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyparam._sources.table import ParamTable

if TYPE_CHECKING:
    from pyparam._sources.checkpoint import Checkpoint

# An attribute of the tensor object, which lives as long as the tensor does.
_MAKE = "_pyparam_make"

_CPU = torch.device("cpu")


class Untold(ValueError):
    """The value of an entry cannot be told: it is stored in a way that is not known here, or is damaged."""


def stand_in(shape: Sequence[int], dtype: torch.dtype, make: Callable[[], Tensor]) -> Tensor:
    """A tensor of that shape and dtype whose value ``make`` gives, on the CPU."""
    made = torch.empty(tuple(shape), dtype=dtype, device="meta")
    setattr(made, _MAKE, make)
    return made


def listed(source: Checkpoint, name: str) -> Tensor:
    """A stand-in for a tensor of a checkpoint."""
    info = source.tensor_info(name)
    return stand_in(info.shape, info.dtype, functools.partial(source.__getitem__, name))


def place_of(tensor: Tensor) -> tuple[Checkpoint, str] | None:
    """The checkpoint, and the name there, that a stand-in is ``listed`` from; None for another tensor."""
    make = getattr(tensor, _MAKE, None)
    if not isinstance(make, functools.partial):
        return None
    return make.func.__self__, make.args[0]  # type: ignore[attr-defined]


def is_stand_in(tensor: Tensor) -> bool:
    return tensor.is_meta and hasattr(tensor, _MAKE)


def value_of(tensor: Tensor) -> Tensor:
    """The value of a stand-in, made anew; any other tensor as it is."""
    make: Any = getattr(tensor, _MAKE, None) if tensor.is_meta else None
    return tensor if make is None else make()


def device_of(tensor: Tensor) -> torch.device:
    """Where the value is."""
    return _CPU if is_stand_in(tensor) else tensor.device


def with_values(table: ParamTable) -> ParamTable:
    """The table with all values in memory; itself where it has no stand-ins."""
    tensors = table.tensors
    if not any(map(is_stand_in, tensors)):
        return table
    return ParamTable(table.names, [value_of(tensor) for tensor in tensors], table._owners)


def told_values(table: ParamTable) -> tuple[ParamTable, dict[str, str]]:
    """``with_values`` of the entries whose values can be told, and the reasons of the others."""
    untold: dict[str, str] = {}
    made: dict[int, Tensor] = {}
    for row, tensor in enumerate(table.tensors):
        try:
            made[row] = value_of(tensor)
        except Untold as error:
            untold[table.names[row]] = str(error)
    kept = table._take(list(made)) if untold else table
    return ParamTable(kept.names, list(made.values()), kept._owners), untold


class Values:
    """A table's tensors by name, where stand-ins are asked for their values one at a time.

    One whose value cannot be told raises Untold, and is not among them from then on: ``untold`` has why.
    """

    def __init__(self, table: ParamTable) -> None:
        self.table = table
        self.untold: dict[str, str] = {}

    def __contains__(self, name: object) -> bool:
        return name in self.table and name not in self.untold

    def __getitem__(self, name: str) -> Tensor:
        try:
            return value_of(self.table[name])
        except Untold as error:
            self.untold[name] = str(error)
            raise

    def layout(self, name: str) -> Tensor:
        """A tensor of which shape and dtype are those of the value, and no more may be asked."""
        return self.table[name]
