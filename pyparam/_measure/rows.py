"""A row of statistics, what it is laid out as, and how it reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from pyparam._base.words import dtype_name, plain, shape_text

T = TypeVar("T")


class Layout(NamedTuple):
    """Shape, dtype and device of a row; None where its parts differ."""

    shape: tuple[int, ...] | None
    dtype: torch.dtype | None
    device: torch.device | None


@dataclass(frozen=True)
class Where:
    """Where a value lies: its index in the whole parameter, and the rank that holds it."""

    index: tuple[int, ...]
    rank: int


class Layouts(Protocol):
    def __len__(self) -> int: ...
    def shape(self, index: int, /) -> tuple[int, ...]: ...
    def dtype(self, index: int, /) -> torch.dtype: ...
    def device(self, index: int, /) -> torch.device: ...

    # Of all rows.
    def shapes(self) -> list[tuple[int, ...]]: ...
    def dtypes(self) -> list[torch.dtype]: ...
    def devices(self) -> list[torch.device]: ...


class PickedLayouts:
    """Row i has the layout of row ``rows[i]`` of two others together."""

    def __init__(self, first: Layouts, second: Layouts, rows: list[int]) -> None:
        self._parts = first, second
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def _at(self, index: int) -> tuple[Layouts, int]:
        first, second = self._parts
        row = self._rows[index]
        return (first, row) if row < len(first) else (second, row - len(first))

    def shape(self, index: int, /) -> tuple[int, ...]:
        part, row = self._at(index)
        return part.shape(row)

    def dtype(self, index: int, /) -> torch.dtype:
        part, row = self._at(index)
        return part.dtype(row)

    def device(self, index: int, /) -> torch.device:
        part, row = self._at(index)
        return part.device(row)

    def shapes(self) -> list[tuple[int, ...]]:
        return self._picked([*self._parts[0].shapes(), *self._parts[1].shapes()])

    def dtypes(self) -> list[torch.dtype]:
        return self._picked([*self._parts[0].dtypes(), *self._parts[1].dtypes()])

    def devices(self) -> list[torch.device]:
        return self._picked([*self._parts[0].devices(), *self._parts[1].devices()])

    def _picked(self, every: list[T]) -> list[T]:
        return [every[row] for row in self._rows]


class ListedLayouts:
    """Layouts of rows that were put together from other tables'."""

    def __init__(self, layouts: list[Layout]) -> None:
        self._layouts = layouts

    def __len__(self) -> int:
        return len(self._layouts)

    def shape(self, index: int, /) -> Any:
        return self._layouts[index].shape

    def dtype(self, index: int, /) -> Any:
        return self._layouts[index].dtype

    def device(self, index: int, /) -> Any:
        return self._layouts[index].device

    def shapes(self) -> list[Any]:
        return [layout.shape for layout in self._layouts]

    def dtypes(self) -> list[Any]:
        return [layout.dtype for layout in self._layouts]

    def devices(self) -> list[Any]:
        return [layout.device for layout in self._layouts]


def merged_layout(parts: list[Layout]) -> Layout:
    """What all parts agree on."""
    first = parts[0]
    return Layout(
        first.shape if all(part.shape == first.shape for part in parts) else None,
        first.dtype if all(part.dtype == first.dtype for part in parts) else None,
        first.device if all(part.device == first.device for part in parts) else None,
    )


@dataclass(frozen=True)
class Row:
    """Statistics of one parameter, or of all of them together (named "total").

    Attributes:
        name, shape, dtype, device: the parameter's; None of the total, where they differ.
        numel: how many values it has.
        nbytes: its size in bytes.
        min, max, mean, std, rms: of its finite values; std is that of ``torch.std``, with numel - 1.
        l1, l2: the sum of the magnitudes, and the root of the sum of the squares.
        max_abs: the largest magnitude.
        zeros, nans, posinfs, neginfs, subnormals: how many values are such.
        quantiles: by the points that ``measure`` was asked for.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: torch.dtype | None
    device: torch.device | None
    numel: int
    nbytes: int
    min: float
    max: float
    mean: float
    std: float
    rms: float
    l1: float
    l2: float
    max_abs: float
    zeros: int
    nans: int
    posinfs: int
    neginfs: int
    subnormals: int
    quantiles: dict[float, float]
    shared_with: str | None
    """The first name that shares memory with this one, itself included; None where no other does."""

    @property
    def nonfinite(self) -> int:
        """NaNs and infinities."""
        return self.nans + self.posinfs + self.neginfs

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings; the quantiles only where some were asked for."""
        out = {name: getattr(self, name) for name in _FIELDS}
        out["shape"] = None if self.shape is None else list(self.shape)
        out["dtype"] = None if self.dtype is None else str(self.dtype)
        out["device"] = None if self.device is None else str(self.device)
        if not self.quantiles:
            del out["quantiles"]
        return out


_FIELDS = tuple(field.name for field in fields(Row))
NUMBERS = _FIELDS[_FIELDS.index("numel") : _FIELDS.index("quantiles")]
"""The figures of a row, in the order of its fields."""


def cells(row: Row) -> list[str]:
    shape = "" if row.shape is None else shape_text(row.shape)
    dtype = "" if row.dtype is None else dtype_name(row.dtype)
    numbers = (row.mean, row.std, row.min, row.max)
    counts = (row.zeros, row.nonfinite)
    return [
        marked(plain(row.name), None if row.shared_with is None else plain(row.shared_with)),
        shape,
        dtype,
        *(number(value) for value in numbers),
        *(f"{count:,}" for count in counts),
        *(number(value) for value in row.quantiles.values()),
    ]


def marked(name: str, first: str | None) -> str:
    """A name, and what it shares memory with."""
    if first is None:
        return name
    return f"{name} (tied)" if first == name else f"{name} = {first}"


def number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def finite_or_none(value: Any) -> Any:
    """For JSON: NaN and infinities, which it has not, become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite_or_none(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_or_none(item) for item in value]
    return value
