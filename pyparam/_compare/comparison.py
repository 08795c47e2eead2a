"""Comparison: what ``compare`` found, as columns; rows are made when someone asks for them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from pyparam._base.closest import closest, hint
from pyparam._base.pending import Pending, settled
from pyparam._base.rename import Suggestion
from pyparam._base.wrappers import Names
from pyparam._compare import printed
from pyparam._compare.printed import SHOWN, Fit
from pyparam._compare.roles import roles_of
from pyparam._compare.structure import Restructured
from pyparam._sources.table import ParamTable

__all__ = ["Comparison", "Difference"]

# The columns of the op, in its order (csrc/kernels/compare.h).
VALUES = ("max_abs", "mean_abs", "l2", "rel_l2", "cosine")
COUNTS = ("numel", "differing", "nonfinite", "first")
SORTABLE = (*VALUES, "differing", "nonfinite")


@dataclass(frozen=True)
class Difference:
    """What a parameter of ``a`` and its namesake in ``b`` differ by, in the words of :class:`Comparison`.

    Attributes:
        name, shape: the parameter's, as ``a`` has it.
        max_abs, mean_abs, l2: of the differences of its values.
        rel_l2: ``l2`` over the norm of ``a``'s.
        cosine: of the angle between both.
        numel: how many values it has.
        differing: how many of them differ in a bit.
        nonfinite: how many differences are not finite.
    """

    name: str
    shape: tuple[int, ...]
    dtypes: tuple[torch.dtype, torch.dtype] | None
    """Of ``a`` and ``b``, where they differ."""
    max_abs: float
    mean_abs: float
    l2: float
    rel_l2: float
    cosine: float
    numel: int
    differing: int
    nonfinite: int
    first: int | None
    """The first element that differs, counted in row-major order."""
    first_index: tuple[int, ...] | None
    """The same as an index: ``a[first_index] != b[first_index]``."""

    @property
    def equal(self) -> bool:
        """Of one dtype and the same bits."""
        return self.differing == 0 and self.dtypes is None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; an infinity, which JSON has no word for, is None."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtypes": None if self.dtypes is None else [str(dtype) for dtype in self.dtypes],
            **{column: _plain(getattr(self, column)) for column in VALUES},
            "numel": self.numel,
            "differing": self.differing,
            "nonfinite": self.nonfinite,
            "first": self.first,
            "first_index": None if self.first_index is None else list(self.first_index),
            "equal": self.equal,
        }


class Comparison:
    """What two sources differ by. Made by :func:`compare`.

    Names matched: ``missing`` (in ``a`` only), ``unexpected`` (in ``b`` only), ``shape_changed`` and
    ``dtype_changed`` (name to the pair of both). ``equal`` is whether the two sources hold the same names,
    shapes, dtypes and bits; a Comparison has no truth value of its own. ``changed()`` names what is in both
    and not the same, ``worst(n)`` gives the rows that differ most.

    Each pair of equal shape is a row: ``comparison["0.weight"]`` is a :class:`Difference`, and each figure is
    a column, a tensor over ``names``, float64 or int64:

    - ``max_abs``, ``mean_abs``: the largest and the mean absolute difference.
    - ``l2``, ``rel_l2``: ||a - b||, and the same over ||a|| (0 if both are zero, infinite if ``a`` alone is).
    - ``cosine``: of the angle between both (1 for equal values, 0 where one side alone is zero).
    - ``numel``, ``differing``: elements, and how many are not the same bits. Of two dtypes, values count:
      zeros of both signs are equal then, and so are all NaNs.
    - ``nonfinite``: values that differ where one is an infinity or a NaN. The figures above leave out every
      pair of values with one of those; two NaNs of the same bits are no difference.
    - ``first``: the first differing element in row-major order, -1 where there is none.
    - ``equal_bits`` (bool): same dtype and same bits.
    """

    __slots__ = (
        "_by_name",
        "_ends",
        "_found",
        "_in_a",
        "_names",
        "_names_a",
        "_sizes",
        "accepted",
        "dtype_changed",
        "missing",
        "recognised",
        "shape_changed",
        "structure",
        "suggestion",
        "unexpected",
        "unread",
        "unseen",
        "values_changed",
    )

    missing: list[str]
    unexpected: list[str]
    shape_changed: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    dtype_changed: dict[str, tuple[torch.dtype, torch.dtype]]

    recognised: dict[str, str]
    """What a pair that differs is: "a rounded to float16", "a transposed", "a reshaped to 4×2"."""

    accepted: dict[str, str]
    """Pairs that count as no difference, as ``cast``, ``atol`` and ``rtol`` were given, and why."""

    structure: list[Restructured]
    """Names without a partner whose values the other side has in another structure."""

    unread: dict[str, str]
    """Parameters whose values cannot be read, and why; they have no row."""

    values_changed: dict[str, tuple[Any, Any]]
    """What a state holds beside tensors, where it differs; None for a side without it."""

    unseen: dict[str, str]
    """What a state holds that was not looked at, and what it is."""

    suggestion: Suggestion | None
    """What to remove from the names of one side so that more of them match."""

    def __init__(self, a: ParamTable, b: ParamTable, found: dict[str, Any]) -> None:
        names_a, names_b = a.names, b.names
        self._names_a = names_a
        self._in_a: Tensor = found["in_a"]
        self._names: tuple[str, ...] | None = None
        self._by_name: Names | None = None
        self.missing = [names_a[i] for i in found["missing"]]
        self.unexpected = [names_b[i] for i in found["unexpected"]]
        self.shape_changed = {}
        self.dtype_changed = {}
        for i, j in zip(found["reshaped_a"], found["reshaped_b"], strict=True):
            one, other = a._tensor(i), b._tensor(j)
            self.shape_changed[names_a[i]] = (tuple(one.shape), tuple(other.shape))
            if one.dtype != other.dtype:
                self.dtype_changed[names_a[i]] = (one.dtype, other.dtype)
        for row in found["retyped"]:
            i, j = int(self._in_a[row]), int(found["in_b"][row])
            self.dtype_changed[names_a[i]] = (a._tensor(i).dtype, b._tensor(j).dtype)
        self.recognised, self.accepted, self.structure = {}, {}, []
        self.unread, self.values_changed, self.unseen, self.suggestion = {}, {}, {}, None
        columns = found["values"], found["counts"]
        self._found: tuple[Tensor, Tensor] | Pending[tuple[Tensor, Tensor]] = (
            columns if columns[0].is_cpu else Pending(columns, _pair)
        )
        self._sizes: Tensor = found["sizes"]
        self._ends: Tensor = found["ends"]

    # --- names ---------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the rows, in the order of ``a``."""
        if self._names is None:
            names = self._names_a
            whole = len(self._in_a) == len(names)  # which are in order
            self._names = tuple(names) if whole else tuple([names[i] for i in self._in_a.tolist()])
        return self._names

    def _name(self, row: int) -> str:
        return self._names_a[int(self._in_a[row])] if self._names is None else self._names[row]

    def _names_of(self, rows: Tensor) -> list[str]:
        return [self._names_a[i] for i in self._in_a[rows].tolist()]

    @property
    def _rows(self) -> Names:
        """The rows by name."""
        if self._by_name is None:
            self._by_name = Names(dict(zip(self.names, range(len(self)), strict=True)))
        return self._by_name

    # --- columns -------------------------------------------------------------------------------------------

    @property
    def _columns(self) -> tuple[Tensor, Tensor]:
        """Values and counts in host memory: brought from a device when someone first asks."""
        return settled(self)

    @property
    def is_read(self) -> bool:
        """Whether the figures are in host memory."""
        return not isinstance(self._found, Pending)

    @property
    def _values(self) -> Tensor:
        return self._columns[0]

    @property
    def _counts(self) -> Tensor:
        return self._columns[1]

    @property
    def max_abs(self) -> Tensor:
        return self._values[:, 0]

    @property
    def mean_abs(self) -> Tensor:
        return self._values[:, 1]

    @property
    def l2(self) -> Tensor:
        return self._values[:, 2]

    @property
    def rel_l2(self) -> Tensor:
        return self._values[:, 3]

    @property
    def cosine(self) -> Tensor:
        return self._values[:, 4]

    @property
    def numel(self) -> Tensor:
        return self._counts[:, 0]

    @property
    def differing(self) -> Tensor:
        return self._counts[:, 1]

    @property
    def nonfinite(self) -> Tensor:
        return self._counts[:, 2]

    @property
    def first(self) -> Tensor:
        return self._counts[:, 3]

    @property
    def equal_bits(self) -> Tensor:
        same = self.differing == 0
        if self.dtype_changed:
            index = self._rows.exact
            same[[index[name] for name in self.dtype_changed if name in index]] = False
        return same

    # --- rows ----------------------------------------------------------------------------------------------

    def _row(self, row: int) -> Difference:
        name = self._name(row)
        begin = int(self._ends[row - 1]) if row > 0 else 0
        shape = tuple(self._sizes[begin : int(self._ends[row])].tolist())
        numel, differing, nonfinite, first = self._counts[row].tolist()
        max_abs, mean_abs, l2, rel_l2, cosine = self._values[row].tolist()
        return Difference(
            name=name,
            shape=shape,
            dtypes=self.dtype_changed.get(name),
            max_abs=max_abs,
            mean_abs=mean_abs,
            l2=l2,
            rel_l2=rel_l2,
            cosine=cosine,
            numel=numel,
            differing=differing,
            nonfinite=nonfinite,
            first=first if first >= 0 else None,
            first_index=_unravel(first, shape) if first >= 0 else None,
        )

    def __getitem__(self, name: str) -> Difference:
        row = self._rows.find(name)
        if row is None:
            raise KeyError(f"compare: {self._why_no_row(name)}")
        return self._row(row)

    def _why_no_row(self, name: str) -> str:
        if name in self.shape_changed:
            before, after = self.shape_changed[name]
            return f"{name!r} has the shape {list(before)} in a and {list(after)} in b: no figures"
        if name in self.unread:
            return f"{name!r} has no figures: {self.unread[name]}"
        if name in self.missing:
            return f"{name!r} is missing in b"
        if name in self.unexpected:
            return f"{name!r} is missing in a"
        close = closest(name, self.names) if isinstance(name, str) else []
        return f"neither side has a parameter named {name!r}{hint(close)}"

    def __contains__(self, name: object) -> bool:
        return self._rows.find(name) is not None

    def __len__(self) -> int:
        return len(self._in_a)

    def __iter__(self) -> Iterator[Difference]:
        return map(self._row, range(len(self)))

    # --- answers -------------------------------------------------------------------------------------------

    @property
    def equal(self) -> bool:
        """Both sources hold the same names, shapes, dtypes and bits, but for what is accepted.

        False where anything was not looked at: ``unread``, ``unseen``.
        """
        if self.missing or self.unexpected or self.values_changed or self.unread or self.unseen:
            return False
        return not (len(self._changed()) or self.shape_changed)

    def __bool__(self) -> NoReturn:
        raise TypeError("the truth value of a Comparison is ambiguous; use comparison.equal or .changed()")

    def changed(self) -> list[str]:
        """Names in both sources whose bits, dtype or shape differ; in the order of ``a``, shapes last.

        Without those that are ``accepted``.
        """
        return [*self._names_of(self._changed()), *self.shape_changed]

    def _changed(self) -> Tensor:
        same = self.equal_bits
        if self.accepted:
            index = self._rows.exact
            same[[index[name] for name in self.accepted]] = True
        return (~same).nonzero().flatten()

    def worst(self, n: int = SHOWN, by: str = "rel_l2") -> list[Difference]:
        """The ``n`` changed rows that differ most by the column ``by``, the worst first.

        Rows with non-finite differences come before all others. ``by`` is ``max_abs``, ``mean_abs``, ``l2``,
        ``rel_l2``, ``differing``, ``nonfinite`` or ``cosine`` (the smallest is the worst). Raises ValueError
        for another column or a negative ``n``.
        """
        if by not in SORTABLE:
            raise ValueError(
                f"Comparison.worst: cannot sort by {by!r}; expected one of {', '.join(SORTABLE)}"
            )
        if n < 0:
            raise ValueError(f"Comparison.worst: n must not be negative, got {n}")
        rows = self._changed()
        key = getattr(self, by)[rows].to(torch.float64)
        order = torch.argsort(key if by == "cosine" else -key, stable=True)
        rows = rows[order]
        rows = rows[torch.argsort(-self.nonfinite[rows].sign(), stable=True)]
        return [self._row(row) for row in rows[:n].tolist()]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: what matched and what did not, and a row for each pair."""
        return {
            "equal": self.equal,
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "shape_changed": {name: [list(x), list(y)] for name, (x, y) in self.shape_changed.items()},
            "dtype_changed": {name: [str(x), str(y)] for name, (x, y) in self.dtype_changed.items()},
            "changed": self.changed(),
            "recognised": dict(self.recognised),
            "accepted": dict(self.accepted),
            "structure": [entry.to_dict() for entry in self.structure],
            "roles": [role.to_dict() for role in roles_of(self)],
            "unread": dict(self.unread),
            "unseen": dict(self.unseen),
            "values_changed": {name: [repr(x), repr(y)] for name, (x, y) in self.values_changed.items()},
            "suggestion": None if self.suggestion is None else self.suggestion.to_dict(),
            "parameters": [row.to_dict() for row in self],
        }

    # --- for people ----------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"Comparison({printed.headline(self)})" + "".join(
            f"\n{line}" for line in printed.details(self, SHOWN, "rel_l2")
        )

    def to_text(self, n: int = SHOWN, by: str = "rel_l2", fit: Fit | None = None) -> str:
        """For people: what did not match, and a table of the worst ``n`` rows as :meth:`worst` gives them.

        ``fit`` is given the table's rows of text, its head first, and says which columns to print.
        """
        return "\n".join([printed.headline(self), *printed.details(self, n, by, fit)])

    def _repr_html_(self) -> str:
        return printed.html(self)


def _pair(values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    return values, counts


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _unravel(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index: list[int] = []
    for size in reversed(shape):
        flat, place = divmod(flat, size)
        index.append(place)
    return tuple(reversed(index))
