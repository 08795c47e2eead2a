"""What ``spectrum`` gives: the singular values of a source's matrices, and figures of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from pyparam._base import notebook
from pyparam._base.closest import missing
from pyparam._base.words import dtype_name, plain, shape_text
from pyparam._base.wrappers import Names
from pyparam._measure.rows import marked, number
from pyparam._measure.told import aligned, reasons_told

_SHOWN_ROWS = 40
_NUMBERS = ("sigma_max", "stable_rank", "effective_rank", "condition", "error", "l2")


@dataclass(frozen=True)
class SpectrumRow:
    """The spectrum of one parameter as a matrix. All figures are NaN where a value of it is not finite.

    Attributes:
        name, shape, dtype: the parameter's.
    """

    name: str
    shape: tuple[int, ...]
    matrix: tuple[int, int]
    """Rows and columns: a tensor of more dimensions is (first, the rest)."""
    dtype: torch.dtype
    singular_values: tuple[float, ...]
    """The k largest, or all where there are fewer, in descending order."""
    l2: float
    """‖W‖, the Frobenius norm: root of the sum of the squares of all singular values."""
    stable_rank: float
    """‖W‖² / s_max² (Rudelson and Vershynin, 2007): from 1 to the rank; 0 of a matrix of zeros."""
    effective_rank: float
    """(Σ s²)² / Σ s⁴, R_0 of WᴴW as in Bartlett, Long, Lugosi and Tsigler (2020), the participation ratio of
    the squares: n of n equal values; 0 of a matrix of zeros. NaN where it was not asked for."""
    condition: float
    """s_max / s_min; infinite where s_min is at most max(rows, columns) × eps × s_max, as of
    ``torch.linalg.matrix_rank``. NaN where it was not asked for."""
    error: float
    """Within this of each of ``singular_values`` lies a singular value of the matrix: the largest residual. 0
    where ``exact``."""
    exact: bool
    """Whether they are of ``torch.linalg.svdvals``; else of block Lanczos iteration, and the condition is an
    estimate from below."""
    nonfinite: int
    """NaNs and infinities."""
    shared_with: str | None
    """The first name that is the same memory under the same layout, itself included; None where no other
    is."""

    @property
    def sigma_max(self) -> float:
        """The largest singular value, the spectral norm."""
        return self.singular_values[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings."""
        made = {field.name: getattr(self, field.name) for field in fields(self)}
        made |= {key: list(made[key]) for key in ("shape", "matrix", "singular_values")}
        return made | {"dtype": str(self.dtype), "sigma_max": self.sigma_max}


class Spectrum(Sequence[SpectrumRow]):
    """Rows of matrices, in the source's order; ``spectrum["layer.weight"]`` and ``spectrum[0]``.

    Attributes:
        left_out: matrices without a row, since they cannot be read as such: name to the reason.
        k: how many singular values were asked for.
    """

    def __init__(self, rows: Sequence[SpectrumRow], left_out: Mapping[str, str], k: int) -> None:
        self._rows = list(rows)
        # Backwards, so that the first of several with one name is the one found.
        self._by_name = Names({row.name: i for i, row in reversed(list(enumerate(self._rows)))})
        self.left_out = dict(left_out)
        self.k = k

    @property
    def names(self) -> list[str]:
        """The qualified names of the rows."""
        return [row.name for row in self._rows]

    @property
    def sigma_max(self) -> Tensor:
        """float64 [rows]."""
        return self._column("sigma_max")

    @property
    def singular_values(self) -> Tensor:
        """float64 [rows, k], NaN behind the last of a matrix with fewer than k."""
        rows = [(*row.singular_values, *[math.nan] * self.k)[: self.k] for row in self._rows]
        return torch.tensor(rows, dtype=torch.float64, device="cpu").reshape(len(self), self.k)

    @property
    def stable_rank(self) -> Tensor:
        """float64 [rows]."""
        return self._column("stable_rank")

    @property
    def effective_rank(self) -> Tensor:
        """float64 [rows]."""
        return self._column("effective_rank")

    @property
    def condition(self) -> Tensor:
        """float64 [rows]."""
        return self._column("condition")

    @property
    def error(self) -> Tensor:
        """float64 [rows]."""
        return self._column("error")

    def _column(self, name: str) -> Tensor:
        values = [getattr(row, name) for row in self._rows]
        return torch.tensor(values, dtype=torch.float64, device="cpu")

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[SpectrumRow]:
        return iter(self._rows)

    def __contains__(self, name: object) -> bool:
        return self._by_name.find(name) is not None

    def __getitem__(self, key: Any) -> Any:
        """The row of a name or at a position; rows of a slice.

        Raises KeyError for a name without a row, with the reason where it was left out.
        """
        if isinstance(key, slice):
            return Spectrum(self._rows[key], self.left_out, self.k)
        if not isinstance(key, str):
            return self._rows[key]
        row = self._by_name.find(key)
        if row is not None:
            return self._rows[row]
        if key in self.left_out:
            raise KeyError(f"spectrum: {key!r} has no row: {self.left_out[key]}")
        raise missing(key, self.names, "a spectrum")

    def nonfinite(self) -> list[str]:
        """Names of the matrices with a NaN or an infinity, in the source's order."""
        return [row.name for row in self._rows if row.nonfinite]

    def sort(self, by: str = "sigma_max", descending: bool = True) -> Spectrum:
        """The same rows ordered by a column ("name" or a number), those that are NaN there last.

        Raises ValueError for an unknown column.
        """
        if by == "name":
            return self._of(sorted(self._rows, key=lambda row: row.name, reverse=descending))
        if by not in _NUMBERS:
            raise ValueError(f"sort: no column {by!r}; there are name, {', '.join(_NUMBERS)}")
        sign = -1 if descending else 1

        def key(row: SpectrumRow) -> tuple[bool, float]:
            value = float(getattr(row, by))
            return math.isnan(value), 0.0 if math.isnan(value) else sign * value

        return self._of(sorted(self._rows, key=key))

    def _of(self, rows: list[SpectrumRow]) -> Spectrum:
        return Spectrum(rows, self.left_out, self.k)

    def to_dict(self) -> dict[str, Any]:
        """``{"parameters": {name: {column: value}}, "nonfinite": [...], "left_out": {name: reason}}``."""
        return {
            "parameters": {row.name: row.to_dict() for row in self},
            "nonfinite": self.nonfinite(),
            "left_out": dict(self.left_out),
        }

    # --- for people ----------------------------------------------------------------------------------------

    def cells(self, limit: int | None = None) -> tuple[list[str], list[list[str]]]:
        """The head of a table and its rows."""
        last = [f"sigma_{self.k}"] if self.k > 1 else []
        header = ["name", "matrix", "dtype", "sigma_max", *last, "stable_rank", "effective_rank", "condition"]
        return [*header, "error"], [self._cells(row) for row in self._rows[:limit]]

    def _cells(self, row: SpectrumRow) -> list[str]:
        last = [row.singular_values[-1]] if self.k > 1 else []
        numbers = [row.sigma_max, *last, row.stable_rank, row.effective_rank, row.condition]
        return [
            marked(plain(row.name), None if row.shared_with is None else plain(row.shared_with)),
            shape_text(row.matrix),
            dtype_name(row.dtype),
            *map(number, numbers),
            "not finite" if row.nonfinite else "exact" if row.exact else f"{row.error:.1g}",
        ]

    def notes(self) -> list[str]:
        """What has no row, in lines."""
        return reasons_told("left out", self.left_out)

    def __repr__(self) -> str:
        if not self._rows:
            return "\n".join(["no matrices", *self.notes()])
        header, rows = self.cells(_SHOWN_ROWS)
        lines = [aligned([header, *rows], left={0, 1, 2})]
        if len(self) > _SHOWN_ROWS:
            lines.append(f"... {len(self) - _SHOWN_ROWS:,} more")
        return "\n".join([*lines, *self.notes()])

    def _repr_html_(self) -> str:
        header, rows = self.cells(_SHOWN_ROWS)
        more = len(self) - len(rows)
        return notebook.table(
            header,
            rows,
            left=3,
            more=f"… {more:,} more" if more else "",
            bad=[i for i, row in enumerate(self._rows[:_SHOWN_ROWS]) if row.nonfinite],
            notes=self.notes(),
        )
