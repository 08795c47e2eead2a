"""Memory that several entries of a table share, cut so that every byte is in one piece only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyparam._share.ties import tie_sets
from pyparam._sources.table import ParamTable

# A map of bytes, made where strided entries overlap in part, is no larger than this.
_LARGEST_MAP = 1 << 30


@dataclass(frozen=True)
class Distinct:
    """A table as what is in it once.

    ``once`` has every byte of the table's memory once: whole entries, and of an entry that overlaps earlier
    ones in part, what they have not. ``again`` has the entries that are not in ``once`` whole. Entry i has
    the values of entry ``row[i]`` of the two together.
    """

    once: ParamTable
    again: ParamTable
    row: list[int]
    first: dict[str, str]
    """For each name that shares memory with another, the first name that does."""


def distinct(table: ParamTable) -> Distinct | None:
    """Cuts a table of strided tensors; None where nothing in it shares memory.

    Every element of an entry without company counts, also of one that is expanded. Where an overlap is only
    assumed, or strided entries far apart overlap in part, an entry that has some byte to itself counts whole.
    """
    sets = tie_sets(table)
    members = sets.members(table._native)
    if not members:
        return None
    names, tensors = table.names, table.tensors
    layout, group, fresh = sets.layout.tolist(), sets.group.tolist(), sets.bytes.tolist()
    first = {entry[0]: entries[0][0] for _, entries in members for entry in entries}
    places: dict[int, list[_Place]] = {}
    vague: set[int] = set()
    followers: dict[int, list[int]] = {}
    for i, leader in enumerate(group):
        if leader != i:
            followers.setdefault(leader, [leader]).append(i)
    for indices, (assumed, entries) in zip(sorted(followers.values()), members, strict=True):
        # What measuring refuses anyway, sparse tensors, has no strides to ask for.
        if assumed or any(tensors[i].layout != torch.strided for i in indices):
            vague.update(indices)
        places[indices[0]] = [
            _Place(i, tensors[i], entry[4]) for i, entry in zip(indices, entries, strict=True)
        ]
    once: list[tuple[str, Tensor]] = []
    again: list[tuple[str, Tensor]] = []
    at: dict[int, tuple[bool, int]] = {}
    for i, (name, tensor) in enumerate(zip(names, tensors, strict=True)):
        if layout[i] != i:
            continue
        pieces = None
        whole = group[i] == i or (i in vague and fresh[i] > 0) or fresh[i] == _bytes(tensor)
        if not whole and fresh[i] > 0:
            pieces = _fresh(i, places[group[i]])
            whole = pieces is None
        if whole:
            at[i] = True, len(once)
            once.append((name, tensor))
            continue
        at[i] = False, len(again)
        again.append((name, tensor))
        once.extend((name, piece) for piece in pieces or ())
    row = [place if in_once else len(once) + place for in_once, place in (at[i] for i in layout)]
    return Distinct(_table(once), _table(again), row, first)


def _table(entries: list[tuple[str, Tensor]]) -> ParamTable:
    return ParamTable([name for name, _ in entries], [tensor for _, tensor in entries])


@dataclass(frozen=True)
class _Place:
    """A member of a group: its index in the table, and where it begins in the group's memory, in bytes."""

    index: int
    tensor: Tensor
    offset: int

    @property
    def end(self) -> int:
        reach = sum((n - 1) * s for n, s in zip(self.tensor.shape, self.tensor.stride(), strict=True))
        return self.offset + (reach + 1) * self.tensor.element_size()

    def dense(self) -> bool:
        return self.end - self.offset == _bytes(self.tensor) and _without_gaps(self.tensor)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _without_gaps(tensor: Tensor) -> bool:
    """Whether a tensor is a permutation of a contiguous one."""
    reach = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != reach:
            return False
        reach *= size
    return True


def _fresh(index: int, places: Sequence[_Place]) -> list[Tensor] | None:
    """The elements of an entry that have a byte which is in no earlier entry; None where it would take too
    long to tell."""
    own = next(place for place in places if place.index == index)
    earlier = [p for p in places if p.index < index and p.offset < own.end and p.end > own.offset]
    if own.tensor.is_conj() or own.tensor.is_neg() or not all(p.dense() for p in (own, *earlier)):
        return _fresh_of_strided(own, earlier)
    size = own.tensor.element_size()
    flat = own.tensor.detach()
    pieces: list[Tensor] = []
    done = 0

    def take(begin: int, end: int) -> None:
        """Bytes from the entry's first."""
        nonlocal done
        from_element, to_element = max(begin // size, done), -(-end // size)
        if to_element > from_element:
            where = flat.storage_offset() + from_element
            pieces.append(flat.as_strided((to_element - from_element,), (1,), where))
            done = to_element

    seen = own.offset
    for place in sorted(earlier, key=lambda p: p.offset):
        if place.offset > seen:
            take(seen - own.offset, min(place.offset, own.end) - own.offset)
        seen = max(seen, place.end)
    if seen < own.end:
        take(seen - own.offset, own.end - own.offset)
    return pieces


def _fresh_of_strided(own: _Place, earlier: Sequence[_Place]) -> list[Tensor] | None:
    begin = min(place.offset for place in (own, *earlier))
    extent = max(place.end for place in (own, *earlier)) - begin
    if extent > _LARGEST_MAP:
        return None
    taken = torch.zeros(extent, dtype=torch.bool, device="cpu")

    def each_byte(place: _Place) -> list[Tensor]:
        """Views of ``taken`` for the first bytes of the elements, the second ones, and so on."""
        t, size = place.tensor, place.tensor.element_size()
        # One element under several indices is written once.
        sizes = [n if s else 1 for n, s in zip(t.shape, t.stride(), strict=True)]
        strides = [s * size for s in t.stride()]
        return [taken.as_strided(sizes, strides, place.offset - begin + byte) for byte in range(size)]

    for place in earlier:
        for view in each_byte(place):
            view.fill_(True)
    known = torch.stack(each_byte(own)).all(0)
    return [own.tensor.detach()[~known.expand(own.tensor.shape).to(own.tensor.device)]]
