"""Stats: what ``measure`` found, as columns of tensors; rows are made when someone asks for them."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyparam._base.closest import missing as missing_name
from pyparam._base.native import _C
from pyparam._base.notebook import table
from pyparam._base.pending import Pending
from pyparam._base.wrappers import Names
from pyparam._measure.bins import (
    BINS_PER_OCTAVE,
    LIMIT_TYPES,
    ONE_VALUE_A_BIN,
    Bins,
    Counted,
    Histogram,
    Underflow,
    below_of,
    histogram_of,
    quantiles_of,
)
from pyparam._measure.columns import COUNTS, VALUES, Columns, Listed, StatColumns
from pyparam._measure.grouped import distinct_members, group_cells, layouts_of, members_of, merged, narrowed
from pyparam._measure.labels import By
from pyparam._measure.rows import NUMBERS, Layout, Layouts, ListedLayouts, Row, Where, cells, merged_layout
from pyparam._measure.told import aligned, reasons_told

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

_SHOWN_ROWS = 20
_BLOCK = 4096


class Stats(StatColumns):
    """Statistics of a source's parameters, a row each, in table order.

    ``stats["0.weight"]`` and ``stats[0]`` are rows, ``stats.mean`` is a column: float64 ``min max mean std
    rms l1 l2 max_abs``, int64 ``numel nbytes zeros nans posinfs neginfs subnormals``, lists ``names shape
    dtype device shared_with``. ``stats.total`` is the row of everything together, in which memory that
    several rows share counts once. ``a + b`` merges statistics of shards, ranks or steps: rows of one name
    become one, and the totals one, as if their values had been measured together.
    """

    def __init__(
        self,
        *,
        names: list[str] | _C.NameColumn,
        columns: Columns | Pending[Columns],
        layouts: Layouts,
        points: tuple[float, ...] = (),
        missing: Sequence[str] = (),
        shared: Mapping[str, str] | None = None,
        places: Mapping[str, Where] | None = None,
        unread: Mapping[str, str] | None = None,
    ) -> None:
        self._listed = Listed(names)
        self._found = columns
        self._layouts = layouts
        self._points = points
        self._missing = list(missing)
        self._shared = dict(shared or {})
        self._places = dict(places or {})
        self._unread = dict(unread or {})
        self._index: Names | None = None
        self._quantiles: Tensor | None = None
        self._one_value: Tensor | None = None

    @property
    def quantiles(self) -> Tensor:
        """The quantiles that were asked for: float64 ``[rows, quantiles]``. See ``quantile``."""
        return self._all_quantiles()[:-1]

    # Rows

    def __len__(self) -> int:
        return len(self._listed)

    def __iter__(self) -> Iterator[Row]:
        # Some thousands of rows at a time come out of the columns.
        for begin in range(0, len(self), _BLOCK):
            yield from self._rows(begin, min(begin + _BLOCK, len(self)))

    def __contains__(self, name: object) -> bool:
        return self._by_name().find(name) is not None

    def __getitem__(self, key: str | int) -> Row:
        """The row of a qualified name, or at a position.

        Raises KeyError for a name that is not there, IndexError for a position that is not.
        """
        if isinstance(key, int):
            if not -len(self) <= key < len(self):
                raise IndexError(f"position {key} is outside stats of {len(self)} rows")
            return self._row(key % len(self))
        position = self._by_name().find(key)
        if position is None:
            raise missing_name(key, self._names, "stats")
        return self._row(position)

    @property
    def total(self) -> Row:
        """Everything together: one row for the values of all parameters."""
        return self._row(len(self))

    def _positions(self) -> Mapping[str, int]:
        return self._by_name().exact

    def _by_name(self) -> Names:
        if self._index is None:
            self._index = Names({name: i for i, name in enumerate(self._names)})
        return self._index

    def _layout(self, row: int) -> Layout:
        if row < len(self):
            layouts = self._layouts
            return Layout(layouts.shape(row), layouts.dtype(row), layouts.device(row))
        dtypes, devices = set(self._layouts.dtypes()), set(self._layouts.devices())
        return Layout(
            None,
            dtypes.pop() if len(dtypes) == 1 else None,
            devices.pop() if len(devices) == 1 else None,
        )

    def _row(self, row: int) -> Row:
        return next(self._rows(row, row + 1))

    def _rows(self, begin: int, end: int) -> Iterator[Row]:
        values, counts = self._values[begin:end].tolist(), self._counts[begin:end].tolist()
        quantiles = self._all_quantiles()[begin:end].tolist()
        for i, row in enumerate(range(begin, end)):
            figures = dict(zip(VALUES, values[i], strict=True)) | dict(zip(COUNTS, counts[i], strict=True))
            name = self._names[row] if row < len(self) else "total"
            shape, dtype, device = self._layout(row)
            yield Row(
                name=name,
                shape=shape,
                dtype=dtype,
                device=device,
                **{number: figures[number] for number in NUMBERS},
                quantiles=dict(zip(self._points, quantiles[i], strict=True)),
                shared_with=self._shared.get(name) if row < len(self) else None,
            )

    def nonfinite(self) -> list[str]:
        """Names of the parameters with a NaN or an infinity, in table order."""
        found = (self.nans + self.posinfs + self.neginfs).nonzero().flatten().tolist()
        return [self._names[i] for i in found]

    @property
    def first_nonfinite(self) -> dict[str, Where]:
        """Of parameters that lie on several ranks: the first value that is a NaN or an infinity, as its index
        in the whole parameter and the rank that holds it. Parameters without one have no entry."""
        return self._places

    @property
    def unread(self) -> dict[str, str]:
        """Parameters without a row because their values cannot be read, each with the reason."""
        return self._unread

    def sort(self, by: str = "l2", descending: bool = True) -> Stats:
        """The same rows ordered by a column ("name" or any number); equal rows keep their order, and rows
        that are NaN there come last. ``total`` stays.

        Raises ValueError for an unknown column.
        """
        if by in ("name", "names"):
            order = sorted(range(len(self)), key=self._names.__getitem__, reverse=descending)
        elif by in NUMBERS:
            column = getattr(self, by).double()
            if descending:
                column = -column
            # NaN sorts behind every number.
            order = column.sort(stable=True).indices.tolist()
        else:
            raise ValueError(f"sort: no column {by!r}; there are name, {', '.join(NUMBERS)}")
        return self._take(order)

    def _take(self, order: list[int]) -> Stats:
        rows = torch.tensor([*order, len(self)], dtype=torch.int64, device="cpu")
        bins = self._bins
        if bins is not None:
            nothing = torch.full_like(rows, -1)
            merged = _C.merge_histograms(*bins[1:], rows, *bins[1:], nothing)
            bins = Bins(bins.below[rows], *merged)
        return Stats(
            names=[self._names[i] for i in order],
            columns=Columns(self._values[rows], self._counts[rows], bins),
            layouts=ListedLayouts([self._layout(i) for i in order]),
            points=self._points,
            missing=self._missing,
            shared=self._shared,
            places=self._places,
            unread=self._unread,
        )

    def _only(self, rows: Sequence[int]) -> Stats:
        """Some rows, and a total of those alone."""
        some = self._take(list(rows))
        parts = [self._take([row]) for row in rows]
        for part in parts:
            columns = part._columns
            part._found = Columns(columns.values[[0, 0]], columns.counts[[0, 0]], None)
        total = sum(parts[1:], parts[0])
        columns = some._columns
        some._found = Columns(
            torch.cat((columns.values[:-1], total._values[-1:])),
            torch.cat((columns.counts[:-1], total._counts[-1:])),
            None,
        )
        return some

    # Groups

    def by(self, what: By) -> Grouped:
        """The rows united by what their names say, as Stats of groups: exact figures, merged histograms.

        A group prints with a strip of bars, one a member in the model's order: the logarithm of its root
        mean square ("!" where a value is not finite), so that the layer that differs is seen in one line.

        ::

            pyparam.measure(model).by("role")                  # 48 layers in one line a role
            pyparam.log(stats.by("role"), writer, step)        # one chart a role
            pyparam.plot(stats.by("role"))                     # roles by layers as a heat map
            stats.by(lambda name: "norms" if "norm" in name else None)

        Args:
            what: "module" ("layers.3.attn.q_proj"), "layer" ("layers.3"; what stands in no list by its first
                module), "role" ("attn.q_proj", "attn.q_proj.bias": what is left of a name without its place
                in the list of layers and ``.weight``), or a function from a name to a label, None for a row
                that is in no group.

        In a group memory that two names share under one layout counts once; ``total`` stays that of all.

        Raises:
            ValueError: for another word. TypeError: for a function that gives no string.
        """
        return Grouped(self, what)

    # Merging

    def __add__(self, other: object) -> Stats:
        if not isinstance(other, Stats):
            return NotImplemented
        names = list(dict.fromkeys((*self._names, *other._names)))
        rows = [stats._rows_of(names) for stats in (self, other)]
        values, counts = _C.merge_statistics(
            self._values, self._counts, rows[0], other._values, other._counts, rows[1]
        )
        bins = None
        if self._bins is not None and other._bins is not None:
            a, b = self._bins, other._bins
            merged = _C.merge_histograms(*a[1:], rows[0], *b[1:], rows[1])
            bins = Bins(_rows_or_zero(a.below, rows[0]) + _rows_or_zero(b.below, rows[1]), *merged)
        own, others = self._positions(), other._positions()
        either = own.keys() | others.keys()
        layouts = [
            merged_layout([s._layout(at[name]) for s, at in ((self, own), (other, others)) if name in at])
            for name in names
        ]
        return Stats(
            names=names,
            columns=Columns(values, counts, bins),
            layouts=ListedLayouts(layouts),
            points=self._points if self._points == other._points and bins is not None else (),
            missing=[n for n in dict.fromkeys((*self._missing, *other._missing)) if n not in either],
            shared=other._shared | self._shared,
            places=other._places | self._places,
            unread={n: why for n, why in (other._unread | self._unread).items() if n not in either},
        )

    def __radd__(self, other: object) -> Stats:
        # So that sum(...) of a list of Stats works.
        return self if other == 0 else NotImplemented

    def _rows_of(self, names: Sequence[str]) -> Tensor:
        positions = self._positions()
        return torch.tensor(
            [*(positions.get(name, -1) for name in names), len(self)], dtype=torch.int64, device="cpu"
        )

    # Histograms

    def _counted(self, what: str) -> Counted:
        bins = self._columns.bins
        if bins is None:
            raise ValueError(f"{what}: no histogram was counted; measure with histogram=True")
        return bins

    def histogram(self, name: str | None = None, *, bins_per_octave: int = BINS_PER_OCTAVE) -> Histogram:
        """The finite values of a parameter (of everything, without a name) in bins of their float32's bits.

        A bin of normal values is 2**-7 of its edge nearer to zero wide, or wider with fewer bins an octave
        (a power of two from 1 to 128); every count is exact at any width. Values beyond float32's range,
        which only float64 and 64-bit integers have, count in the outermost bins, and those that float32
        rounds to zero in that of zero.

        Raises ValueError if no histogram was counted or for another number of bins, KeyError for a name that
        is not there.
        """
        bins = self._counted("histogram")
        row = len(self) if name is None else self._by_name().find(name)
        if row is None:
            raise missing_name(name, self._names, "stats")
        return histogram_of(bins, [row], bins_per_octave)

    def quantile(self, q: float | Sequence[float]) -> Tensor:
        """Quantiles of each parameter's finite values, interpolated between order statistics as
        ``torch.quantile`` does: float64 ``[rows]`` for a number, ``[rows, q]`` for several.

        An order statistic is exact in bool, bfloat16 and the float8 types, and the least and the largest
        always are; elsewhere it is off by at most 2**-7 of its magnitude (0.8 %), usually far less, since
        values are taken to be spread evenly over a bin. Below float32's normal range, at most by 2**-133.
        NaN where there is no finite value. Values beyond float32's range are found within its outermost
        bins.

        Raises ValueError if no histogram was counted, or for a number outside [0, 1].
        """
        points = (float(q),) if isinstance(q, (int, float)) else tuple(float(p) for p in q)
        found = self._quantiles_at(points)[:-1]
        return found[:, 0] if isinstance(q, (int, float)) else found

    def _all_quantiles(self) -> Tensor:
        if self._quantiles is None:
            if not self._points:
                return torch.empty((len(self) + 1, 0), dtype=torch.float64, device="cpu")
            self._quantiles = self._quantiles_at(self._points)
        return self._quantiles

    def _quantiles_at(self, points: tuple[float, ...]) -> Tensor:
        bins = self._counted("quantile")
        for point in points:
            if not 0 <= point <= 1:
                raise ValueError(f"quantile: expected numbers in [0, 1], got {point}")
        if self._one_value is None:
            one_value = [dtype in ONE_VALUE_A_BIN for dtype in self._layouts.dtypes()]
            self._one_value = torch.tensor([*one_value, all(one_value)], dtype=torch.bool, device="cpu")
        return quantiles_of(
            bins,
            self._values[:, :2].contiguous(),
            self._one_value,
            torch.tensor(points, dtype=torch.float64, device="cpu"),
        )

    def underflow(self, dtype: torch.dtype) -> Underflow:
        """What rounding to ``dtype`` (to nearest, ties to even) would do to the values, counted exactly.

        Fractions of all values of a parameter: ``zero`` were not zero and become it, ``subnormal`` become
        (or stay) subnormal, ``overflow`` are finite and lie beyond the largest finite number after rounding
        (PyTorch makes them infinite, NaN, or, in float8_e4m3fn of late versions, that largest number). NaN
        for a parameter without values. float64 goes by way of float32, as PyTorch's conversions do.

        Raises ValueError if no histogram was counted, or for another dtype than float32, float16, bfloat16,
        float8_e4m3fn, float8_e5m2, float8_e4m3fnuz and float8_e5m2fnuz.
        """
        fates = torch.stack(self._fates(dtype), 1)
        count = dict(zip(COUNTS, self._counts.unbind(1), strict=True))
        values = count["finite"] + count["nans"] + count["posinfs"] + count["neginfs"]
        return Underflow(dtype, self._names, fates / values.double().unsqueeze(1))

    def _fates(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """The counts that ``underflow`` gives fractions of, int64 over all rows and everything together."""
        bins = self._counted("underflow")
        if dtype not in LIMIT_TYPES:
            raise ValueError(f"underflow: expected one of {', '.join(map(str, LIMIT_TYPES))}, got {dtype}")
        first = 3 * LIMIT_TYPES.index(dtype)
        below_zero, below_normal, below_overflow = below_of(bins, first, 3).unbind(1)
        count = dict(zip(COUNTS, self._counts.unbind(1), strict=True))
        return below_zero - count["zeros"], below_normal - below_zero, count["finite"] - below_overflow

    def __getstate__(self) -> dict[str, Any]:
        """Plain data: the native columns of layouts become a list, packed histograms tensors."""
        _ = self._bins
        layouts = ListedLayouts([self._layout(i) for i in range(len(self))])
        return {**self.__dict__, "_layouts": layouts, "_index": None}

    # Views

    def to_dict(self) -> dict[str, Any]:
        """``{"parameters": {name: {column: value}}, "total": {...}, "missing": [...], "unread": {name:
        reason}}``, plain numbers."""
        return {
            "parameters": {row.name: row.to_dict() for row in self},
            "total": self.total.to_dict(),
            "missing": list(self._missing),
            "unread": dict(self._unread),
        }

    def to_pandas(self) -> pandas.DataFrame:
        """A DataFrame, a row a parameter, the names as its index.

        Raises ImportError if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "to_pandas needs pandas, which is not installed (pip install pandas)"
            ) from error
        columns: dict[str, Any] = {"shape": self.shape, "dtype": self.dtype, "device": self.device}
        columns |= {name: getattr(self, name).numpy() for name in NUMBERS}
        columns["shared_with"] = self.shared_with
        for i, point in enumerate(self._points):
            columns[f"q{point:g}"] = self.quantiles[:, i].numpy()
        return pandas.DataFrame(columns, index=pandas.Index(self._names, name="name"))

    def _cells(self) -> tuple[list[str], list[list[str]], int]:
        """Header, rows with that of the total last, and the number of rows left out before it."""
        header = ["name", "shape", "dtype", "mean", "std", "min", "max", "zeros", "nonfinite"]
        header += [f"q{point:g}" for point in self._points]
        shown = len(self) if len(self) <= _SHOWN_ROWS + 1 else _SHOWN_ROWS
        return header, [cells(self._row(i)) for i in (*range(shown), len(self))], len(self) - shown

    def __repr__(self) -> str:
        header, rows, left_out = self._cells()
        lines = aligned([header, *rows], left={0, 1, 2}).split("\n")
        if left_out:
            lines.insert(-1, f"... {left_out} more")
        return "\n".join([*lines, *self._notes()])

    def _notes(self) -> list[str]:
        notes = [f"{len(self._missing):,} without a gradient"] if self._missing else []
        return notes + reasons_told("not read", self._unread)

    def _repr_html_(self) -> str:
        header, rows, left_out = self._cells()
        bad = self.nans + self.posinfs + self.neginfs
        return table(
            header,
            rows[:-1],
            left=3,
            more=f"… {left_out:,} more" if left_out else "",
            total=rows[-1],
            bad=bad[: len(rows) - 1].nonzero().flatten().tolist(),
            notes=self._notes(),
        )


class Grouped(Stats):
    """Stats of groups, as ``Stats.by`` makes them.

    Attributes:
        members: group to the names in it, in the model's order.
        parts: the Stats that were united.
        what: by what, "group" of a function's.
    """

    def __init__(self, parts: Stats, what: By) -> None:
        groups = members_of(parts, what)
        values, counts, bins = merged(parts._columns, distinct_members(parts, groups))
        super().__init__(
            names=list(groups),
            columns=Columns(values, counts, bins),
            layouts=layouts_of(parts, groups),
            points=parts._points,
            unread=parts._unread,
        )
        self.what = what if isinstance(what, str) else "group"
        self.parts = parts
        self.members = {label: [parts.names[row] for row in rows] for label, rows in groups.items()}
        bad = (parts.nans + parts.posinfs + parts.neginfs).tolist()
        rms = parts.rms.tolist()
        self._strips = [[math.nan if bad[row] else rms[row] for row in rows] for rows in groups.values()]

    def __repr__(self) -> str:
        header, rows = group_cells(self, self._strips)
        header[0] = self.what
        lines = [header, *rows]
        if sys.stdout is not None and sys.stdout.isatty():
            lines = narrowed(header, rows, self._strips, shutil.get_terminal_size().columns)
        return aligned(lines, left={0, len(lines[0]) - 1})

    def _repr_html_(self) -> str:
        header, rows = group_cells(self, self._strips)
        bad = self.nans + self.posinfs + self.neginfs
        return table(
            [self.what, *header[1:]],
            rows[:-1],
            left=1,
            more="",
            total=rows[-1],
            bad=bad.nonzero().flatten().tolist(),
            notes=[],
        )

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"what": self.what}


def _rows_or_zero(table: Tensor, rows: Tensor) -> Tensor:
    return torch.where((rows < 0).unsqueeze(1), 0, table[rows.clamp(min=0)])
