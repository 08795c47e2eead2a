"""Survey: all that is known of a source's parameters and buffers, from one pass over their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pyparam._base.native import _C
from pyparam._findings.families import TABLE, Family, role_key
from pyparam._findings.layouts import Layouts, Shape
from pyparam._findings.named import VERY_MANY, Named, first_rows, places
from pyparam._findings.numbers import numbers
from pyparam._findings.parts import Part, parts_of
from pyparam._measure.measure import measure_strictly
from pyparam._measure.stats import Stats
from pyparam._parts.place import dtensor_type
from pyparam._share.readable import read_of, unreadable_in
from pyparam._share.ties import tie_sets, ties_of
from pyparam._sources import path, table_of
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.chosen import picked, selected
from pyparam._sources.optimizer import is_state
from pyparam._sources.stand_in import told_values, value_of
from pyparam._sources.table import ParamTable, Pattern
from pyparam._sources.tied import Tie

T = TypeVar("T")

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

_MADE = (
    "families",
    "roles",
    "rows",
    "tensors",
    "ties",
    "sets",
    "named",
    "measured",
)
"""What checks had made of the columns."""

# Layers keep running statistics in buffers, which a checkpoint does not tell from parameters.
_RUNNING = re.compile(r"(^|\.)(running_mean|running_var|num_batches_tracked)$")


class Survey:
    """A source's tensors with their statistics, a row a name, also names that share a tensor.

    ``stats`` has a row for every distinct tensor whose values can be read; ``at[row]`` says which, -1 for
    none. ``unreadable`` has the reason of each tensor without statistics.
    """

    def __init__(
        self,
        source: Any,
        table: ParamTable,
        stats: Stats,
        at: Tensor,
        unreadable: dict[str, str],
        is_buffer: list[bool],
    ) -> None:
        self.source = source
        self.table = table
        self.stats = stats
        self.at = at
        self.unreadable = unreadable
        self.is_buffer = is_buffer
        self._figures: dict[str, Tensor] = {}
        self._columns: dict[str, memoryview[Any]] = {}
        self._made: dict[Callable[[Survey], Any], Any] = {}

    @property
    def names(self) -> list[str]:
        return self.table.names

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def tensors(self) -> list[Tensor]:
        return self.table.tensors

    def values(self, row: int) -> Tensor:
        """The values of a row, to be looked at one by one; those of a stand-in are made anew.

        A DTensor is gathered: all its ranks ask for it, as they have the same statistics.
        """
        tensor: Any = value_of(self.table._tensor(row)).detach()
        kind = dtensor_type()
        whole: Tensor = tensor.full_tensor() if kind is not None and isinstance(tensor, kind) else tensor
        return whole

    @cached_property
    def layouts(self) -> Layouts:
        return Layouts(self.table)

    @cached_property
    def named(self) -> Named:
        return Named(self.table)

    @cached_property
    def sets(self) -> Any:
        """Who shares memory with whom; see ``tie_sets``."""
        return tie_sets(self.table)

    @cached_property
    def ties(self) -> list[Tie]:
        return ties_of(self.table, self.sets)

    # --- which rows ----------------------------------------------------------------------------------------
    # A check asks for rows by columns of bools over the names, and looks at what is left one by one.

    @cached_property
    def measured(self) -> Tensor:
        """Rows with statistics, each tensor once, under its first name."""
        there = self.at >= 0
        found = torch.zeros(len(self.at), dtype=torch.bool, device="cpu")
        found[there.nonzero().flatten()[first_rows(places(self.at[there]))]] = True
        return found

    @cached_property
    def rows(self) -> list[int]:
        """``measured`` as positions."""
        return self.those(self.measured)

    def those(self, rows: Tensor) -> list[int]:
        """The positions of rows that are measured and marked."""
        found: list[int] = (self.measured & rows).nonzero().flatten().tolist()
        return found

    def named_like(self, pattern: re.Pattern[str]) -> Tensor:
        """Rows in whose names a pattern is found that does not hang on the indices of blocks."""
        if pattern not in self._patterns:
            self._patterns[pattern] = self.named.where(pattern)
        return self._patterns[pattern]

    @cached_property
    def _patterns(self) -> dict[re.Pattern[str], Tensor]:
        return {}

    @cached_property
    def buffers(self) -> Tensor:
        """Rows that are buffers."""
        return torch.tensor(self.is_buffer, dtype=torch.bool, device="cpu")

    def _part_of_each(self) -> list[Part]:
        """Which part of a training checkpoint each row is of; of a model, every row is of the model."""
        if isinstance(self.source, Optimizer) or (not self.is_file and is_state(self.source)):
            return ["optimizer"] * len(self)  # whatever this one calls its state
        extras = self.source.extras if isinstance(self.source, Checkpoint) else None
        return parts_of(self.names, saved=not isinstance(self.source, nn.Module), extras=extras)

    def of_part(self, part: Part) -> Tensor:
        """Rows of a part."""
        if not self._parts:
            parts = self._part_of_each()
            for own in {*parts, part}:
                found = [each == own for each in parts]
                self._parts[own] = torch.tensor(found, dtype=torch.bool, device="cpu")
        if part not in self._parts:
            self._parts[part] = torch.zeros(len(self), dtype=torch.bool, device="cpu")
        return self._parts[part]

    @cached_property
    def _parts(self) -> dict[Part, Tensor]:
        return {}

    @cached_property
    def statistic(self) -> Tensor:
        """Rows that are no weights: buffers, what a checkpoint has of a layer's running statistics, and
        what else a training checkpoint holds beside the model."""
        return self.buffers | ~self.of_part("model") | self.named_like(_RUNNING)

    @cached_property
    def floats(self) -> Tensor:
        """Rows of floating-point dtypes."""
        return self.layouts.where(lambda kind: kind.dtype.is_floating_point)

    @cached_property
    def matrices(self) -> Tensor:
        """Rows of two dimensions or more that are longer than 1."""
        return self.layouts.where(_is_matrix)

    @cached_property
    def weighty(self) -> Tensor:
        """Floating-point rows with statistics that are weights, each tensor once."""
        return self.measured & ~self.statistic & self.floats

    # --- numbers -------------------------------------------------------------------------------------------

    def figure(self, name: str) -> Tensor:
        """A column of the statistics over the names; NaN (0 for counts) where there are none."""
        if name not in self._figures:
            self._figures[name] = self.spread(getattr(self.stats, name))
        return self._figures[name]

    def quantile(self, q: float) -> Tensor:
        """A column of one of ``QUANTILES``."""
        key = f"q{q}"
        if key not in self._figures:
            # By itself: all seven of very many rows take more than the histograms.
            self._figures[key] = self.spread(self.stats.quantile(q))
        return self._figures[key]

    def column(self, name: str) -> memoryview[Any]:
        """``figure`` as plain numbers."""
        if name not in self._columns:
            self._columns[name] = numbers(self.figure(name))
        return self._columns[name]

    def spread(self, values: Tensor) -> Tensor:
        """A column over the rows of ``stats`` as one over the names; NaN, or 0 for integers, for none."""
        if self._is_plain:
            return values.contiguous()
        missing: float = float("nan") if values.is_floating_point() else 0
        none = torch.full((1,), missing, dtype=values.dtype, device="cpu")
        return torch.cat([values, none])[self.at]

    @cached_property
    def _is_plain(self) -> bool:
        """Whether each name has the row of ``stats`` at its place."""
        rows = len(self.at)
        return rows == len(self.stats) and bool((self.at == torch.arange(rows, device="cpu")).all())

    # --- single rows ---------------------------------------------------------------------------------------

    @property
    def is_model(self) -> bool:
        return isinstance(self.source, nn.Module)

    @property
    def is_file(self) -> bool:
        """Something saved, and so finished."""
        return isinstance(self.source, Checkpoint)

    def is_float(self, row: int) -> bool:
        return self.layouts[row].dtype.is_floating_point

    def sizes(self, row: int) -> tuple[int, ...]:
        return self.layouts[row].sizes or ()

    def is_matrix(self, row: int) -> bool:
        """Of two dimensions or more that are longer than 1."""
        return _is_matrix(self.layouts[row])

    def is_table(self, row: int) -> bool:
        """Whether rows of it are looked up by an index: by its layer where there is one, else by its name."""
        if TABLE.search(self.names[row]):
            return True
        owner = self._owners[row] if self._owners else None
        return isinstance(owner, (nn.Embedding, nn.EmbeddingBag))

    @cached_property
    def _owners(self) -> list[nn.Module | None]:
        # Only a module's table has some.
        return [] if self.table._owners is None else self.table.owners

    def role_of(self, row: int) -> str:
        return role_key(self.names[row])

    # --- families ------------------------------------------------------------------------------------------

    @property
    def _shapes(self) -> Tensor:
        return self.layouts.numbered(lambda kind: kind.sizes)

    @cached_property
    def families(self) -> list[Family]:
        """Parameters of one name but for its numbers, and one shape."""
        return self.named.numbered_families(self._for_families, self._shapes)

    @cached_property
    def roles(self) -> list[Family]:
        """Parameters that play one role in alike blocks: one name but for its indices, and one shape."""
        return self.named.role_families(self._for_families, self._shapes)

    @property
    def _for_families(self) -> Tensor:
        return (self.measured & ~self.statistic).nonzero().flatten()

    def without(self, patterns: list[str]) -> Survey:
        """The same without the rows whose names a glob matches."""
        matched = set(self.table.select(patterns).names)
        kept = [row for row, name in enumerate(self.names) if name not in matched]
        return Survey(
            self.source,
            self.table._take(kept),
            self.stats,
            self.at[torch.tensor(kept, dtype=torch.int64, device="cpu")],
            {name: reason for name, reason in self.unreadable.items() if name not in matched},
            [self.is_buffer[row] for row in kept],
        )

    def let_go(self, *, between_checks: bool = False) -> None:
        """Forgets what checks had made of the columns: of very many rows it takes more than the columns.

        Between checks what is quickly made again is forgotten alone.
        """
        self._figures.clear()
        self._columns.clear()
        many = len(self) >= VERY_MANY
        if not between_checks:
            for kept in (self._patterns, self._parts, self._made):
                kept.clear()
        quickly: tuple[str, ...] = ("rows", "sets") if many else ()
        for name in quickly if between_checks else _MADE:
            self.__dict__.pop(name, None)
        if many:
            _C.trim_memory()  # which would else be what was the most at a time

    def once(self, made: Callable[[Survey], T]) -> T:
        """What a function gives of this survey, which several checks ask for."""
        if made not in self._made:
            self._made[made] = made(self)
        found: T = self._made[made]
        return found

    def take(self, rows: Sequence[int]) -> tuple[str, ...]:
        names = self.names
        return tuple(names[row] for row in rows)


def kept(source: Any) -> Any:
    """The source as something that can be asked twice: a path opened, an iterator read to its end."""
    if path.accepts(source):
        return path.open(source)
    return table_of(source) if isinstance(source, Iterator) else source


def survey(source: Any, select: Pattern | None = None) -> Survey:
    """Walks and measures a source, or what ``ParamTable.select`` takes of it with a pattern.

    A tensor under several names is measured once. What cannot be measured (sparse, quantized, on the meta
    device, ...) has no statistics, and a reason.
    """
    source = kept(source)
    part = None if select is None else picked(source, select)
    if part is not None:
        source, select = part, None
    # Before anyone holds a tensor of it, so that pages of its files are given back as they are read.
    maps = source.spare_maps() if isinstance(source, Checkpoint) else []
    streamed = _streamed(source) if isinstance(source, Checkpoint) and select is None else None
    table = table_of(source, buffers=True, remove_duplicate=False, values=False)
    if select is not None:
        table = selected(table, select)
    parameters = table_of(source, remove_duplicate=False, values=False)
    is_buffer = [False] * len(table)
    if select is not None or len(parameters) != len(table):
        known = set(parameters.names)
        is_buffer = [name not in known for name in table.names]

    unreadable = unreadable_in(table)
    everything = torch.arange(len(table), dtype=torch.int64, device="cpu")
    layout = tie_sets(table).layout if len(table) else everything
    if len(table) >= VERY_MANY:
        _C.trim_memory()  # before what takes the most of all
    # A program in a file tells buffers from parameters, of which alone it streams.
    if streamed is not None and len(streamed) + len(streamed.unread) == len(table):
        stats, unreadable = streamed, unreadable | streamed.unread
        wanted = everything
        if streamed.unread:
            told = [name not in streamed.unread for name in table.names]
            wanted = everything[torch.tensor(told, dtype=torch.bool, device="cpu")]
    else:
        first = layout == everything
        if unreadable:
            readable = [name not in unreadable for name in table.names]
            first &= torch.tensor(readable, dtype=torch.bool, device="cpu")
        wanted = everything[first]
        some = table if len(wanted) == len(table) else table._take(wanted.tolist())
        if isinstance(source, Checkpoint) and source.makes_tensors:
            some, untold = told_values(some)
            if untold:
                unreadable |= untold
                told = [name not in untold for name in map(table.names.__getitem__, wanted.tolist())]
                wanted = wanted[torch.tensor(told, dtype=torch.bool, device="cpu")]
        stats, read = read_of(some, lambda part: measure_strictly(part, quantiles=QUANTILES, maps=maps))
        unreadable |= read.left_out
        if read.left_out:
            wanted = wanted[torch.tensor(read.rows, dtype=torch.int64, device="cpu")]

    at = torch.full((len(table),), -1, dtype=torch.int64, device="cpu")
    at[wanted] = torch.arange(len(wanted), device="cpu")
    seen = Survey(source, table, stats, at[layout], unreadable, is_buffer)
    if len(table) >= VERY_MANY and seen.is_file and seen._is_plain:
        stats._layouts = seen.layouts.of_rows()  # known once for both
    return seen


def _streamed(source: Checkpoint) -> Stats | None:
    """The statistics of a checkpoint whose tensors take memory of their own; None for one that lies over a
    map, and where tensors are refused, which have to be found first."""
    if source.batches(1) is None:
        return None
    try:
        return measure_strictly(source, quantiles=QUANTILES)
    except (TypeError, ValueError):
        return None


def _is_matrix(kind: Shape) -> bool:
    return sum(size > 1 for size in kind.sizes or ()) >= 2
