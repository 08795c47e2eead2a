"""The rows of a model's tree, with alike blocks folded: what ``show`` prints and what its JSON form holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.parameter import is_lazy

from pyparam._base.native import _C
from pyparam._base.words import dtype_name
from pyparam._sources.stand_in import device_of

# A model nested deeper is cut there unless a depth is asked for: its lines would be mostly indentation.
DEEPEST = 256


class Entry(NamedTuple):
    """One tensor of a module's own."""

    key: str
    tensor: Tensor
    is_buffer: bool
    # For a tensor that shares memory: its qualified name, and that of the first tensor over this memory.
    name: str | None = None
    first: str | None = None

    @property
    def uninitialized(self) -> bool:
        """Whether it is a lazy module's, which has no shape yet."""
        return is_lazy(self.tensor)

    @property
    def shape(self) -> tuple[int | str, ...] | None:
        """The sizes; a symbol's name for a symbolic one; None where there are none to give."""
        # No cached property: of a module with tens of thousands of tensors, its lock would cost the most.
        if self.uninitialized:
            return None
        try:
            sizes = self.tensor.shape
        except RuntimeError:  # nested
            return None
        return tuple([size if isinstance(size, int) else str(size) for size in sizes])

    @property
    def dtype(self) -> str:
        return dtype_name(self.tensor.dtype)

    @property
    def device(self) -> str:
        return str(device_of(self.tensor))

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "kind": "buffer" if self.is_buffer else "parameter",
            "shape": None if self.shape is None else list(self.shape),
            "dtype": self.dtype,
            "device": self.device,
            "layout": str(self.tensor.layout).removeprefix("torch."),
            "requires_grad": self.tensor.requires_grad,
            "shared_with": self.first,
        }


@dataclass(frozen=True)
class Row:
    """A module, or consecutive modules alike in class, names, shapes, dtypes, devices and frozen state.

    ``parameters`` and ``buffers`` are those of one of the modules, with what lies below it.
    """

    node: int
    depth: int
    keys: tuple[str, ...]
    type: str
    one_module: bool  # all of `keys` name one and the same module
    repeats: str | None  # the name under which this module stands earlier
    entries: tuple[Entry, ...]
    parameters: _C.Holding
    buffers: _C.Holding
    modules: int
    cut: bool  # has children that are deeper than asked for

    @property
    def count(self) -> int:
        return len(self.keys)


class Summary:
    """A model's tree as rows. Reads the outline only where a row is shown."""

    def __init__(self, outline: _C.Outline, label: str = "") -> None:
        self.outline = outline
        self.label = outline.label(0) or label

    @cached_property
    def clusters(self) -> list[list[int]]:
        """Entries over the same memory, as lists of two or more."""
        return self.outline.clusters()

    @property
    def modules(self) -> int:
        return len(self.outline)

    @property
    def parameters(self) -> _C.Holding:
        return self.outline.holding(0, False)

    @property
    def buffers(self) -> _C.Holding:
        return self.outline.holding(0, True)

    def tied_names(self, limit: int | None = None) -> list[list[str]]:
        """Qualified names of tensors over the same memory."""
        return [[self.outline.entry_name(e) for e in cluster] for cluster in self.clusters[:limit]]

    def rows(self, depth: int | None = None) -> Iterator[Row]:
        """Rows in pre-order, the root first. Only the first block of folded ones is followed."""
        deepest = DEEPEST if depth is None else depth
        root = (0, 0, 1, False)
        stack = [(root, 0)]
        while stack:
            (first, last, count, one_module), level = stack.pop()
            groups = self.outline.groups(first)
            cut = bool(groups) and level >= deepest
            yield self._row(first, last, count, one_module, level, cut)
            if not cut:
                stack += [(group, level + 1) for group in reversed(groups)]

    def _row(self, first: int, last: int, count: int, one_module: bool, depth: int, cut: bool) -> Row:
        outline = self.outline
        repeated = outline.repeats(first)
        return Row(
            node=first,
            depth=depth,
            keys=tuple(outline.series(first, last)),
            type=outline.label(first) or (self.label if first == 0 else ""),
            one_module=one_module,
            repeats=outline.name(repeated) if repeated >= 0 else None,
            entries=tuple(self._entry(e) for e in range(*outline.own_entries(first))),
            parameters=outline.holding(first, False),
            buffers=outline.holding(first, True),
            modules=outline.modules(first),
            cut=cut,
        )

    def _entry(self, entry: int) -> Entry:
        outline = self.outline
        own = outline.entry_key(entry), outline.entry_tensor(entry), outline.entry_is_buffer(entry)
        cluster = outline.entry_cluster(entry)
        if cluster < 0:
            return Entry(*own)
        return Entry(*own, outline.entry_name(entry), outline.entry_name(self.clusters[cluster][0]))

    def to_dict(self, depth: int | None = None) -> dict[str, Any]:
        """The JSON form: plain dicts, lists, strings, numbers, bools and None, under these keys.

        - ``type``, ``modules``: of the whole model; ``parameters`` and ``buffers``: what it holds.
        - ``shared``: lists of the qualified names of tensors over the same memory.
        - ``rows``, in pre-order: ``name`` and ``last`` (the qualified names of the first and last of
          ``count`` alike modules), ``depth``, ``type``, ``modules`` (of one block), ``one_module`` (all of
          them are the same object), ``repeats`` (the earlier name of a module met again, or None),
          ``tensors`` (of one block's own: ``key``, ``kind``, ``shape``, ``dtype``, ``device``, ``layout``,
          ``requires_grad``, ``shared_with``), ``parameters`` and ``buffers`` (of one block).
        - What something holds: ``names`` and ``values`` count every name; ``tensors``, ``unique``,
          ``bytes`` and ``trainable`` (values) count shared storage once.
        """
        return {
            "type": self.label,
            "modules": self.modules,
            "parameters": _holding(self.parameters),
            "buffers": _holding(self.buffers),
            "shared": self.tied_names(),
            "rows": [self._row_dict(row) for row in self.rows(depth)],
        }

    def _row_dict(self, row: Row) -> dict[str, Any]:
        name = self.outline.name(row.node)
        return {
            "name": name,
            "last": name[: len(name) - len(row.keys[0])] + row.keys[-1],
            "count": row.count,
            "depth": row.depth,
            "type": row.type,
            "modules": row.modules,
            "one_module": row.one_module,
            "repeats": row.repeats,
            "tensors": [entry.to_dict() for entry in row.entries],
            "parameters": _holding(row.parameters),
            "buffers": _holding(row.buffers),
        }


def _holding(held: _C.Holding) -> dict[str, int]:
    return {
        "names": held.names,
        "values": held.values,
        "tensors": held.tensors,
        "unique": held.unique,
        "bytes": held.bytes,
        "trainable": held.trainable,
    }
