"""What tensors are laid out as, told once for all that are alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from pyparam._findings.numbers import numbers
from pyparam._sources.stand_in import device_of
from pyparam._sources.table import ParamTable

T = TypeVar("T")


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
        self._at: memoryview[int] = numbers(self.of)

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, row: int) -> Shape:
        return self.kinds[self._at[row]]

    def __iter__(self) -> Iterator[Shape]:
        return (self.kinds[kind] for kind in self._at)

    def of_rows(self) -> RowLayouts:
        """As what Stats knows of its rows' layouts."""
        return RowLayouts(self.kinds, self._at)

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


class RowLayouts:
    """The layouts of rows by their kinds."""

    def __init__(self, kinds: list[Shape], of: memoryview[int]) -> None:
        self._kinds = kinds
        self._of = of

    def __len__(self) -> int:
        return len(self._of)

    def shape(self, index: int, /) -> tuple[int, ...]:
        return self._kinds[self._of[index]].sizes or ()

    def dtype(self, index: int, /) -> torch.dtype:
        return self._kinds[self._of[index]].dtype

    def device(self, index: int, /) -> torch.device:
        return self._kinds[self._of[index]].device

    def shapes(self) -> list[tuple[int, ...]]:
        return self._each([kind.sizes or () for kind in self._kinds])

    def dtypes(self) -> list[torch.dtype]:
        return self._each([kind.dtype for kind in self._kinds])

    def devices(self) -> list[torch.device]:
        return self._each([kind.device for kind in self._kinds])

    def _each(self, values: list[T]) -> list[T]:
        return [values[kind] for kind in self._of]


def _shape(tensor: Tensor) -> Shape:
    sizes: tuple[int, ...] | None = None
    if not is_lazy(tensor) and not tensor.is_nested:
        sizes = tuple(int(size) if isinstance(size, int) else -1 for size in tensor.shape)
    return Shape(sizes, tensor.dtype, device_of(tensor))
