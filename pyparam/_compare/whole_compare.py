"""``compare`` where parameters of a side lie on several ranks: each rank compares its part of both sides."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyparam._base.native import _C
from pyparam._compare.alike import cast_words, is_close, rounds_to
from pyparam._compare.matching import matched
from pyparam._parts.exchange import added, minimum, ordered, unordered
from pyparam._parts.meeting import Meeting
from pyparam._parts.parts import Parts, local_of, parts_of, replaced, replicated, split
from pyparam._parts.place import Place
from pyparam._share.readable import unreadable_in
from pyparam._sources.distributed import DistributedCheckpoint
from pyparam._sources.stand_in import is_stand_in, place_of, value_of
from pyparam._sources.table import ParamTable

_COUNTS = 4  # finite, differing, nonfinite, first (csrc/kernels/cpu/part_compare.h)
_DIFFERING, _NONFINITE, _FIRST = 1, 2, 3
_SQUARES = slice(2, 4)  # of both sides, among the exact sums


class Side:
    """One of two sources: what its entries are, and any block of one that is a stand-in."""

    def __init__(self, table: ParamTable) -> None:
        self.table = table
        self.is_lazy = any(map(is_stand_in, table.tensors))

    def unread(self) -> dict[str, str]:
        """The entries whose values cannot be read here, and why."""
        if self.is_lazy:
            return unreadable_in(self.table)
        _, kind_of, first = split(self.table)
        odd = unreadable_in(self.table._take(first))
        if not odd:
            return {}
        names = self.table.names
        reasons = [odd.get(names[row], "") for row in first]
        return {names[i]: reasons[kind] for i, kind in enumerate(kind_of.tolist()) if reasons[kind]}


class _Pairs:
    """Entries of both sides that are compared: what of each lies here, and how the others come by it.

    ``kind_of`` says of each pair which of ``kinds`` it is: pairs of one kind lie alike on both sides.
    """

    def __init__(self, a: Side, b: Side, in_a: Sequence[int], in_b: Sequence[int]) -> None:
        self.sides = a, b
        self.tables = a.table._take(in_a), b.table._take(in_b)
        self.names = self.tables[0].names
        parts = [
            parts_of("compare", table, f" of {label}", tells=True)
            for table, label in zip(self.tables, "ab", strict=True)
        ]
        # As one number: unique() of rows sorts them far slower.
        count = max(1, len(parts[1].kinds))
        found, kind_of = torch.unique(parts[0].kind_of * count + parts[1].kind_of, return_inverse=True)
        pairs = [divmod(both, count) for both in found.tolist()]
        self.kinds = [_PairKind(parts[0].kinds[i], parts[1].kinds[j]) for i, j in pairs]
        places = [kind.place for kind in self.kinds]
        nothing = torch.empty(0, dtype=torch.float32, device="cpu")
        table = ParamTable(self.names, [nothing] * len(self.names))
        self.parts = Parts(table, table, places, kind_of, parts[0].mistake or parts[1].mistake)
        self.blocks = tuple(part.locals.tensors for part in parts)

    def rows(self, chosen: Callable[[_PairKind], bool]) -> list[int]:
        return self.parts.of_rows([chosen(kind) for kind in self.kinds]).nonzero().flatten().tolist()

    def read(self) -> None:
        """What of a side is whole is cut to this rank's block, and read where it is in a file."""
        for at, side in enumerate(self.sides):
            blocks, tensors = self.blocks[at], self.tables[at].tensors
            cut = set(self.rows(lambda kind, at=at: kind.is_cut(at)))  # type: ignore[misc]
            for i in range(len(blocks)) if side.is_lazy else sorted(cut):
                if is_stand_in(tensors[i]):
                    blocks[i] = _read(tensors[i], self.parts.place(i))
                elif i in cut:
                    blocks[i] = self.parts.place(i).of(tensors[i].detach())

    def moved_rows(self) -> list[int]:
        return self.rows(lambda kind: kind.moves)

    def move(self) -> None:
        """Brings DTensors of ``b`` that are placed otherwise than ``a``; their ranks communicate."""
        for i in self.moved_rows():
            like: Any = self.tables[0].tensors[i]
            tensor: Any = self.tables[1].tensors[i]
            if tensor.device_mesh == like.device_mesh:
                block = local_of(replaced(tensor, like.placements))
            else:
                block = self.parts.place(i).of(local_of(replicated(tensor))).clone()
            self.blocks[1][i] = block


class _PairKind:
    """How a pair lies: ``place`` is where this rank's block of both is."""

    def __init__(self, a: Place, b: Place) -> None:
        self._both = a, b
        self.place = a if a.ranks or not b.ranks else b
        self.moves = bool(a.ranks and b.ranks and a.layout != b.layout)

    def is_cut(self, at: int) -> bool:
        """Whether a side has the whole where the other has a part."""
        return bool(self.place.ranks) and not self._both[at].ranks


def _read(tensor: Tensor, place: Place) -> Tensor:
    """This rank's block of a stand-in: of a checkpoint in pieces, no more is read."""
    source, name = place_of(tensor) or (None, "")
    if not isinstance(source, DistributedCheckpoint):
        return place.of(value_of(tensor).detach())
    out = torch.empty(place.sizes, dtype=tensor.dtype, device="cpu")
    source.read(name, place.offsets, place.sizes, out)
    return out


class Asked(NamedTuple):
    """What else than figures is asked of pairs: whether one is the other rounded, and how close they are."""

    atol: float | None
    rtol: float | None

    @property
    def tolerance(self) -> tuple[float, float] | None:
        return None if self.atol is None and self.rtol is None else (self.atol or 0.0, self.rtol or 0.0)


class Found(NamedTuple):
    """What the native ``compare`` gives of two tables; the reasons of what has no row; and of rows that
    differ, which are the other side rounded, and which within the tolerance. ``even`` are those
    whose sums of squares are the same, or unknown."""

    columns: dict[str, Any]
    unread: dict[str, str]
    casts: dict[str, str]
    close: list[str]
    even: list[str]


_FORTH, _BACK, _CLOSE, _QUESTIONS = 0, 1, 2, 3


def compare_whole(a: Side, b: Side, asked: Asked) -> Found:
    """The comparison of two sources of which each rank holds parts."""
    unread = b.unread() | a.unread()
    found = matched(a.table, b.table, unread)
    tensors_a, tensors_b = a.table.tensors, b.table.tensors
    retyped = set(found["retyped"])
    in_a, in_b = found["in_a"].tolist(), found["in_b"].tolist()
    pairs = _Pairs(a, b, in_a, in_b)
    parts = pairs.parts
    moved = len(pairs.moved_rows())
    reads_first = bool(a.is_lazy or b.is_lazy or moved)
    if reads_first:
        # All ranks have read before some wait for others to bring what is placed otherwise.
        with Meeting("compare", parts, ("reads", moved, asked)), torch.no_grad():
            pairs.read()
        with torch.no_grad():
            pairs.move()
    with Meeting("compare", parts, ("compares", asked)), torch.no_grad():
        if not reads_first:
            pairs.read()
        one, other = (
            ParamTable(pairs.names, [t if t.is_cpu else t.detach().cpu() for t in blocks])
            for blocks in pairs.blocks
        )
        sums, counts, largest = _C.compare_parts(one._native, other._native)
        for row in (counts[:, _FIRST] != 2**63 - 1).nonzero().flatten().tolist():
            counts[row, _FIRST] = parts.place(row).flat(int(counts[row, _FIRST]))
        answers = _answers(one, other, counts, retyped, asked)
    values, all_counts, answers, even = _united(parts, sums, counts, largest, answers)
    found["values"], found["counts"] = values, all_counts
    casts = {}
    for row in retyped:
        one_type, other_type = tensors_a[in_a[row]].dtype, tensors_b[in_b[row]].dtype
        forth, back = (bool(answers[row, question]) for question in (_FORTH, _BACK))
        if words := cast_words(one_type, other_type, lambda: forth, lambda: back):  # noqa: B023
            casts[pairs.names[row]] = words
    close = []
    if asked.tolerance is not None:
        close = (answers[:, _CLOSE] != 0).nonzero().flatten().tolist()
    close = [row for row in close if row not in retyped]
    names = pairs.names
    return Found(found, unread, casts, [names[row] for row in close], [names[row] for row in even])


def _answers(
    one: ParamTable, other: ParamTable, counts: Tensor, retyped: Collection[int], asked: Asked
) -> Tensor:
    """What is asked of this rank's blocks (int64 ``[rows, 3]``): 1 where it is so, also of an empty one."""
    out = torch.ones(len(one), _QUESTIONS, dtype=torch.int64, device="cpu")
    for row in retyped:
        out[row, _FORTH] = rounds_to(one[row], other[row])
        out[row, _BACK] = rounds_to(other[row], one[row])
    if asked.tolerance is not None:
        for row in (counts[:, 1] > 0).nonzero().flatten().tolist():
            if row not in retyped:
                out[row, _CLOSE] = is_close(one[row], other[row], *asked.tolerance)
    return out


def _united(
    parts: Parts, sums: Any, counts: Tensor, largest: Tensor, answers: Tensor
) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    columns = [counts[:, _FIRST:], ordered(-largest).unsqueeze(1), sums.windows(), answers]
    least = torch.split(minimum(parts.splits, torch.cat(columns, 1)), [c.shape[1] for c in columns], 1)
    windows = least[2].contiguous()
    limbs, per_row = sums.packed(windows)
    limbs, totals = added(parts.splits, [(limbs, per_row), (counts[:, :_FIRST].flatten(), _FIRST)])
    counts = torch.cat((totals.view(-1, _FIRST), least[0]), 1)
    exact = _C.ExactTable.unpacked(windows, limbs)
    even: list[int] = []
    if bool((counts[:, _DIFFERING] > 0).any()):
        squares = exact.rounded()[:, _SQUARES]
        same = (squares[:, 0] == squares[:, 1]) | (counts[:, _NONFINITE] > 0)
        even = (same & (counts[:, _DIFFERING] > 0)).nonzero().flatten().tolist()
    values, all_counts = _C.differences_of(
        exact,
        counts.contiguous(),
        -unordered(least[1].flatten()),
        parts.of_rows([math.prod(place.whole) for place in parts.kinds]),
    )
    return values, all_counts, least[3], even
