"""What tensors are laid out as, told once for all that are alike."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from pyparam._findings.numbers import numbers
from pyparam._sources.stand_in import device_of
from pyparam._sources.table import ParamTable


@dataclass(frozen=True)
class Shape:
    """What a tensor is laid out as; ``sizes`` is None where there are none to give."""

    sizes: tuple[int, ...] | None
    dtype: torch.dtype
    device: torch.device


class Layouts:
    """The layout of each tensor of a table, a row a tensor.

    ``kinds`` are those that differ, ``of`` (int64 over the rows) says which one a row has. ``odd`` are the
    rows of tensors that may have no values to read.
    """

    def __init__(self, table: ParamTable) -> None:
        found = table._layout_kinds()
        self.of = found.kind_of
        self.kinds = [_shape(table._tensor(row)) for row in found.first]
        self.odd: list[int] = found.odd
        self._at: array[int] = numbers(found.kind_of)

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, row: int) -> Shape:
        return self.kinds[self._at[row]]

    def __iter__(self) -> Iterator[Shape]:
        return (self.kinds[kind] for kind in self._at)

    def where(self, what: Callable[[Shape], bool]) -> Tensor:
        """Bools over the rows."""
        return torch.tensor([what(kind) for kind in self.kinds], dtype=torch.bool, device="cpu")[self.of]

    def each(self, what: Callable[[Shape], float], dtype: torch.dtype = torch.int64) -> Tensor:
        """Numbers over the rows."""
        return torch.tensor([what(kind) for kind in self.kinds], dtype=dtype, device="cpu")[self.of]

    def numbered(self, what: Callable[[Shape], object]) -> Tensor:
        """Over the rows, a number for what is said of each: equal where that is equal."""
        known: dict[object, int] = {}
        return self.each(lambda kind: known.setdefault(what(kind), len(known)))


def _shape(tensor: Tensor) -> Shape:
    sizes: tuple[int, ...] | None = None
    if not is_lazy(tensor) and not tensor.is_nested:
        sizes = tuple(int(size) if isinstance(size, int) else -1 for size in tensor.shape)
    return Shape(sizes, tensor.dtype, device_of(tensor))
