"""What the native op found, and its columns under their names."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyparam._base.native import _C
from pyparam._base.pending import Pending, settled
from pyparam._measure.bins import Bins, Counted, unpacked
from pyparam._measure.rows import Layouts

# Columns of the op's results, in its order (csrc/kernels/cpu/measure.h).
VALUES = ("min", "max", "mean", "std", "rms", "l1", "l2", "max_abs", "m2", "mean_low", "exponent")
COUNTS = ("numel", "nbytes", "zeros", "nans", "posinfs", "neginfs", "subnormals", "finite")


class Columns(NamedTuple):
    """What was measured, a row a parameter and a last one for all together, as the op gives it."""

    values: Tensor
    counts: Tensor
    bins: Counted | None

    @classmethod
    def of(cls, values: Tensor, counts: Tensor, *bins: Tensor) -> Columns:
        return cls(values, counts, Bins(*bins) if bins else None)


class Listed:
    """Names of rows. A table's column becomes strings when someone first asks."""

    __slots__ = ("_column", "_strings")

    def __init__(self, names: list[str] | _C.NameColumn) -> None:
        self._column = None if isinstance(names, list) else names
        self._strings = names if isinstance(names, list) else None

    @property
    def strings(self) -> list[str]:
        if self._strings is None:
            assert self._column is not None
            self._strings = self._column.strings()
        return self._strings

    def __len__(self) -> int:
        return len(self._strings if self._column is None else self._column)  # type: ignore[arg-type]

    def same(self, other: Listed) -> bool:
        """Whether both have the same names in the same order."""
        if self._column is not None and other._column is not None:
            return self._column == other._column
        return self.strings == other.strings


class StatColumns:
    """The columns of Stats, which holds what they are read from."""

    _listed: Listed
    _found: Columns | Pending[Columns]
    _layouts: Layouts
    _missing: list[str]
    _shared: dict[str, str]

    @property
    def _names(self) -> list[str]:
        return self._listed.strings

    @property
    def _columns(self) -> Columns:
        """In host memory: what lies on a device is brought here when someone first asks."""
        return settled(self)

    @property
    def _values(self) -> Tensor:
        return self._columns.values

    @property
    def _counts(self) -> Tensor:
        return self._columns.counts

    @property
    def _bins(self) -> Bins | None:
        """As tensors, which from then on are what is held."""
        columns = self._columns
        if columns.bins is None or isinstance(columns.bins, Bins):
            return columns.bins
        bins = unpacked(columns.bins)
        self._found = columns._replace(bins=bins)
        return bins

    def _value(self, name: str) -> Tensor:
        return self._values[:-1, VALUES.index(name)]

    def _count(self, name: str) -> Tensor:
        return self._counts[:-1, COUNTS.index(name)]

    @property
    def names(self) -> list[str]:
        """Qualified names of the rows."""
        return self._names

    @property
    def missing(self) -> list[str]:
        """Parameters without a row: those without a gradient, where gradients were measured."""
        return self._missing

    @property
    def shared_with(self) -> list[str | None]:
        """The first name that shares memory with each row's, its own where it is the first; None where a row
        has its memory to itself. Merged rows have what either part says."""
        return [self._shared.get(name) for name in self._names]

    @property
    def shape(self) -> list[tuple[int, ...]]:
        """Shapes of the parameters."""
        return self._layouts.shapes()

    @property
    def dtype(self) -> list[torch.dtype]:
        """Dtypes of the parameters."""
        return self._layouts.dtypes()

    @property
    def device(self) -> list[torch.device]:
        """Devices that the parameters lie on."""
        return self._layouts.devices()

    @property
    def numel(self) -> Tensor:
        """Elements; merged rows have those of both parts."""
        return self._count("numel")

    @property
    def nbytes(self) -> Tensor:
        """Bytes of a row's own elements. In ``total``, shared memory counts once."""
        return self._count("nbytes")

    @property
    def min(self) -> Tensor:
        """Least finite value."""
        return self._value("min")

    @property
    def max(self) -> Tensor:
        """Largest finite value."""
        return self._value("max")

    @property
    def mean(self) -> Tensor:
        """Mean of the finite values."""
        return self._value("mean")

    @property
    def std(self) -> Tensor:
        """Standard deviation of the finite values, with Bessel's correction; NaN for fewer than two."""
        return self._value("std")

    @property
    def rms(self) -> Tensor:
        """Root of the mean square of the finite values."""
        return self._value("rms")

    @property
    def l1(self) -> Tensor:
        """Sum of the magnitudes of the finite values."""
        return self._value("l1")

    @property
    def l2(self) -> Tensor:
        """Euclidean norm of the finite values."""
        return self._value("l2")

    @property
    def max_abs(self) -> Tensor:
        """Largest magnitude of a finite value."""
        return self._value("max_abs")

    @property
    def zeros(self) -> Tensor:
        """Zeros of either sign."""
        return self._count("zeros")

    @property
    def nans(self) -> Tensor:
        """NaNs."""
        return self._count("nans")

    @property
    def posinfs(self) -> Tensor:
        """Values of +inf."""
        return self._count("posinfs")

    @property
    def neginfs(self) -> Tensor:
        """Values of -inf."""
        return self._count("neginfs")

    @property
    def subnormals(self) -> Tensor:
        """Values other than zero below the smallest normal number of the parameter's dtype."""
        return self._count("subnormals")
