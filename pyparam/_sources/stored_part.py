"""The tensors of a file by what describes them: made when they are asked for, over a map of the file."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from torch import Tensor, nn

from pyparam._base.native import _C
from pyparam._sources.archive import Archive
from pyparam._sources.checkpoint import ByteRange, TensorInfo
from pyparam._sources.entries_part import EntriesPart
from pyparam._sources.mapped import MappedFile
from pyparam._sources.stored import StoredTensor, check_layout, contiguous_stride
from pyparam._sources.unpickle import PickleError

_ALIGNMENT = 16  # of the widest element
# What is neither these nor a floating-point or complex type is packed or quantized.
_INTEGERS = {
    torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    torch.int8, torch.int16, torch.int32, torch.int64,
}  # fmt: skip

MOST_UNFOLDED = 4 << 30
"""Strides of zero may make so many bytes of those that are stored, and 64 times the file's size."""


class _Bytes(bytearray):
    """Bytes that can be looked for as long as someone needs them."""

    __slots__ = ("__weakref__",)


class Home:
    """Where a storage's bytes are: at a place of the file, or unpacked already. One object is one storage."""

    __slots__ = ("__weakref__", "label", "place", "size", "unpacked")

    def __init__(self, label: str, place: int, size: int, unpacked: bytes | None = None) -> None:
        self.label = label
        self.place = place
        self.size = size
        self.unpacked = None if unpacked is None else _Bytes(unpacked)

    @property
    def is_mapped(self) -> bool:
        """Whether tensors can lie over the map itself."""
        return self.unpacked is None and self.place % _ALIGNMENT == 0


class Homes:
    """The homes that an archive's members are."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._known: dict[str, Home] = {}

    def of(self, member: str) -> Home:
        """Raises ValueError for a member that is not there, or that cannot be unpacked."""
        known = self._known.get(member)
        if known is None:
            archive = self._archive
            place = archive.place(member)
            unpacked = None if archive.is_stored(member) else archive.read(member)
            known = self._known[member] = Home(member, place, archive.members[member].size, unpacked)
        return known


class Entry(NamedTuple):
    """A tensor of a file, by name."""

    name: str
    stored: StoredTensor
    home: Home
    is_buffer: bool = False


class StoredPart:
    """The tensors of one file.

    One ``StoredTensor`` is one tensor object while someone holds it, and tensors with one home share memory.
    A storage that was compressed is held; one that is not aligned as a tensor must be is read when it is
    used.
    """

    def __init__(self, path: Path, file: BinaryIO, entries: Sequence[Entry]) -> None:
        """Raises ValueError for an entry that does not lie inside its storage."""
        self.path = path
        self._map = MappedFile(path, file)
        self._entries = entries
        self._live: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()
        self._read: weakref.WeakValueDictionary[int, _Bytes] = weakref.WeakValueDictionary()
        unfolded, most = 0, MOST_UNFOLDED + 64 * self._map.size
        for name, stored, home, _ in entries:
            unfolded += max(0, math.prod(stored.shape) - _span(stored)) * stored.dtype.itemsize
            if unfolded > most:
                raise ValueError(
                    f"{path}: entry {name!r} of shape {list(stored.shape)} and strides {list(stored.stride)} "
                    f"repeats what is stored: such tensors unfold to more than {most} bytes"
                )
            try:
                check_layout(stored.dtype, stored.offset, stored.shape, stored.stride, home.size)
            except PickleError as error:
                raise ValueError(f"{path}: entry {name!r} in {home.label!r}: {error}") from None
            if home.unpacked is None and home.place + home.size > self._map.size:
                raise ValueError(f"{path}: entry {name!r} in {home.label!r}: the file is truncated")

    @property
    def file(self) -> MappedFile | None:
        return self._map

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self._entries]

    def info(self, position: int) -> TensorInfo:
        stored = self._entries[position].stored
        return TensorInfo(stored.dtype, stored.shape, math.prod(stored.shape) * stored.dtype.itemsize)

    def byte_range(self, position: int) -> ByteRange | None:
        _, stored, home, _ = self._entries[position]
        if 0 in stored.shape or home.unpacked is not None:
            return None
        begin = home.place + stored.offset * stored.dtype.itemsize
        return ByteRange(self.path, begin, begin + _span(stored) * stored.dtype.itemsize)

    def tensor(self, position: int) -> Tensor:
        _, stored, home, _ = self._entries[position]
        made = self._live.get(id(stored))
        if made is None:
            made = self._live[id(stored)] = self._made(stored, home)
        return made

    def _made(self, stored: StoredTensor, home: Home) -> Tensor:
        size = stored.dtype.itemsize
        if 0 in stored.shape:
            data = torch.empty_strided(stored.shape, stored.stride, dtype=stored.dtype, device="cpu")
        elif home.is_mapped:
            data = self._map.tensor(home.place + stored.offset * size, stored.dtype, (_span(stored),))
            data = data.as_strided(stored.shape, stored.stride)
        else:
            data = torch.frombuffer(
                self._bytes(home), dtype=stored.dtype, count=_span(stored), offset=stored.offset * size
            ).as_strided(stored.shape, stored.stride)
        if stored.parameter:
            return nn.Parameter(data, requires_grad=stored.requires_grad)
        return data.requires_grad_(stored.requires_grad)

    def _bytes(self, home: Home) -> _Bytes:
        if home.unpacked is not None:
            return home.unpacked
        read = self._read.get(id(home))
        if read is None:
            read = self._read[id(home)] = _Bytes(self._map.read(home.place, home.size))
        return read

    def close(self) -> None:
        self._map.close()


def part_of(path: Path, file: BinaryIO, entries: Sequence[Entry]) -> StoredPart | EntriesPart:
    """A part of these entries: as columns where each is a plain contiguous tensor over memory of its own, as
    those of nearly every state dict are. An object an entry would take more than all verbs do.

    Raises ValueError for an entry that does not lie inside its storage.
    """
    part = StoredPart(path, file, entries)
    dense: dict[tuple[int, ...], tuple[int, ...]] = {}
    homes: set[int] = set()
    for _, stored, home, is_buffer in entries:
        shape = stored.shape
        if shape not in dense:
            dense[shape] = contiguous_stride(shape)
        homes.add(id(home))
        if (
            not home.is_mapped
            or 0 in shape
            or stored.stride != dense[shape]
            or stored.requires_grad
            or stored.parameter
            or is_buffer
            or not (stored.dtype.is_floating_point or stored.dtype.is_complex or stored.dtype in _INTEGERS)
        ):
            return part
    if len(homes) < len(entries):
        return part
    begins = [home.place + stored.offset * stored.dtype.itemsize for _, stored, home, _ in entries]
    columns = _C.MappedEntries(
        begins, [entry.stored.dtype for entry in entries], [entry.stored.shape for entry in entries]
    )
    return EntriesPart(part.names, columns, part._map)


def _span(stored: StoredTensor) -> int:
    """How many elements lie between the first and the last, both counted."""
    return 1 + sum((n - 1) * step for n, step in zip(stored.shape, stored.stride, strict=True))
