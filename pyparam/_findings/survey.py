"""Survey: all that is known of a source's parameters and buffers, from one pass over their values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyparam._findings.families import TABLE, Family, family_key, role_key
from pyparam._findings.parts import Part, parts_of
from pyparam._measure.measure import measure_strictly
from pyparam._measure.stats import Stats
from pyparam._parts.place import dtensor_type
from pyparam._share.readable import read_of, unreadable_in
from pyparam._share.ties import tie_sets, ties_of
from pyparam._sources import path, table_of
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.chosen import picked, selected
from pyparam._sources.table import ParamTable, Pattern
from pyparam._sources.tied import Tie

T = TypeVar("T")

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

# Layers keep running statistics in buffers, which a checkpoint does not tell from parameters.
_RUNNING = re.compile(r"(^|\.)(running_mean|running_var|num_batches_tracked)$")


@dataclass(frozen=True)
class Shape:
    """What a tensor is laid out as; ``sizes`` is None where there are none to give."""

    sizes: tuple[int, ...] | None
    dtype: torch.dtype
    device: torch.device


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
        self._columns: dict[str, list[Any]] = {}
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
        """The values of a row, to be looked at one by one. A DTensor is gathered: all its ranks ask for it,
        as they have the same statistics."""
        tensor: Any = self.tensors[row].detach()
        kind = dtensor_type()
        whole: Tensor = tensor.full_tensor() if kind is not None and isinstance(tensor, kind) else tensor
        return whole

    @cached_property
    def layouts(self) -> list[Shape]:
        return [_shape(tensor) for tensor in self.tensors]

    @cached_property
    def sets(self) -> Any:
        """Who shares memory with whom; see ``tie_sets``."""
        return tie_sets(self.table)

    @cached_property
    def ties(self) -> list[Tie]:
        return ties_of(self.table)

    @cached_property
    def rows(self) -> list[int]:
        """Rows with statistics, each tensor once, under its first name."""
        held: set[int] = set()
        rows = []
        for row, at in enumerate(self.at.tolist()):
            if at >= 0 and at not in held:
                held.add(at)
                rows.append(row)
        return rows

    def column(self, name: str) -> list[Any]:
        """A column of the statistics as plain numbers, by row; NaN (0 for counts) where there are none."""
        if name not in self._columns:
            self._columns[name] = self.spread(getattr(self.stats, name))
        return self._columns[name]

    def spread(self, values: Tensor) -> list[Any]:
        """A tensor over the rows of ``stats`` as numbers over the names; NaN, or 0 for integers, for none."""
        missing: float = float("nan") if values.is_floating_point() else 0
        # Lists: as tensor operations these would be many small ones, each a meeting of all threads.
        numbers = [*values.tolist(), missing]
        return [numbers[at] for at in self.at.tolist()]

    @cached_property
    def part(self) -> list[Part]:
        """Which part of a training checkpoint each row is of; of a model, every row is of the model."""
        return parts_of(self.names, saved=not isinstance(self.source, nn.Module))

    @cached_property
    def statistic(self) -> list[bool]:
        """Whether a row is no weight: a buffer, what a checkpoint has of a layer's running statistics, or
        what else a training checkpoint holds beside the model."""
        running = _RUNNING.search
        return [
            buffer or part != "model" or running(name) is not None
            for buffer, part, name in zip(self.is_buffer, self.part, self.names, strict=True)
        ]

    @cached_property
    def weights(self) -> list[int]:
        """Floating-point rows with statistics that are weights, each tensor once."""
        return [row for row in self.rows if not self.statistic[row] and self.is_float(row)]

    def quantile(self, q: float) -> list[float]:
        """A column of one of ``QUANTILES``."""
        key = f"q{q}"
        if key not in self._columns:
            self._columns[key] = self.spread(self.stats.quantiles[:, QUANTILES.index(q)])
        return self._columns[key]

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
        return sum(size > 1 for size in self.sizes(row)) >= 2

    @cached_property
    def families(self) -> list[Family]:
        """Parameters of one name but for its numbers, and one shape."""
        return self._families(family_key)

    @cached_property
    def roles(self) -> list[Family]:
        """Parameters that play one role in alike blocks: one name but for its indices, and one shape."""
        return self._families(role_key)

    def is_table(self, row: int) -> bool:
        """Whether rows of it are looked up by an index: by its layer where there is one, else by its name."""
        if TABLE.search(self.names[row]):
            return True
        owner = self._owners[row]
        return isinstance(owner, (nn.Embedding, nn.EmbeddingBag))

    @cached_property
    def _owners(self) -> list[nn.Module | None]:
        # A table that a TorchScript model gave has no owners at all.
        return self.table.owners or [None] * len(self)

    def role_of(self, row: int) -> str:
        return role_key(self.names[row])

    def _families(self, key_of: Callable[[str], str]) -> list[Family]:
        groups: dict[tuple[str, tuple[int, ...] | None], list[int]] = {}
        names, layouts = self.names, self.layouts
        for row in self.rows:
            if not self.statistic[row]:
                groups.setdefault((key_of(names[row]), layouts[row].sizes), []).append(row)
        return [Family(key, rows) for (key, _), rows in groups.items()]

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

    def once(self, made: Callable[[Survey], T]) -> T:
        """What a function gives of this survey, which several checks ask for."""
        if made not in self._made:
            self._made[made] = made(self)
        found: T = self._made[made]
        return found

    def take(self, rows: list[int]) -> tuple[str, ...]:
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
    streamed = _streamed(source) if isinstance(source, Checkpoint) and select is None else None
    table = table_of(source, buffers=True, remove_duplicate=False)
    if select is not None:
        table = selected(table, select)
    parameters = table_of(source, remove_duplicate=False)
    is_buffer = [False] * len(table)
    if select is not None or len(parameters) != len(table):
        known = set(parameters.names)
        is_buffer = [name not in known for name in table.names]

    unreadable = unreadable_in(table)
    layout = tie_sets(table).layout if len(table) else torch.zeros(0, dtype=torch.int64, device="cpu")
    # A program in a file tells buffers from parameters, of which alone it streams.
    if streamed is not None and len(streamed) == len(table):
        stats, wanted = streamed, list(range(len(table)))
    else:
        first = (layout == torch.arange(len(table), device="cpu")).tolist()
        wanted = [row for row, name in enumerate(table.names) if first[row] and name not in unreadable]
        stats, read = read_of(table._take(wanted), lambda part: measure_strictly(part, quantiles=QUANTILES))
        unreadable |= read.left_out
        wanted = [wanted[row] for row in read.rows]

    at = torch.full((len(table),), -1, dtype=torch.int64, device="cpu")
    at[torch.tensor(wanted, dtype=torch.int64, device="cpu")] = torch.arange(len(wanted), device="cpu")
    return Survey(source, table, stats, at[layout], unreadable, is_buffer)


def _streamed(source: Checkpoint) -> Stats | None:
    """A checkpoint's statistics; None where it has tensors that are refused, which have to be found first."""
    try:
        return measure_strictly(source, quantiles=QUANTILES)
    except (TypeError, ValueError):
        return None


def _shape(tensor: Tensor) -> Shape:
    sizes: tuple[int, ...] | None = None
    if not is_lazy(tensor) and not tensor.is_nested:
        sizes = tuple(int(size) if isinstance(size, int) else -1 for size in tensor.shape)
    return Shape(sizes, tensor.dtype, tensor.device)
