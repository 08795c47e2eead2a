"""Programs in files, TorchScript archives and exported programs: their tensors, and none of their code."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor, nn

from pyparam._sources.archive import Archive
from pyparam._sources.checkpoint import ByteRange, Checkpoint, TensorInfo
from pyparam._sources.mapped import MappedFile
from pyparam._sources.stored import StoredTensor, check_layout
from pyparam._sources.unpickle import PickleError

_ALIGNMENT = 16  # of the widest element


class Entry(NamedTuple):
    """A tensor of a program, over a member of an archive; that may lie inside another archive."""

    name: str
    stored: StoredTensor
    archive: Archive
    member: str
    is_buffer: bool


class Program(Checkpoint):
    """A Checkpoint that tells parameters from buffers: what a program's file holds, without its code.

    As a mapping it has both, parameters under each of their names. Functions that take a source list what
    they would of the loaded program: the same names, in the same order, tied as they are there. Tensors that
    are neither, constants of the code and plain attributes, are among ``extras``.

    For the live program, load the file with torch and pass what that gives.
    """

    __slots__ = ("_buffers", "_distinct")

    def __init__(
        self,
        path: Path,
        part: StoredPart,
        entries: Sequence[Entry],
        *,
        removes_duplicates: bool,
        extras: Mapping[str, Any],
    ) -> None:
        places = {entry.name: position for position, entry in enumerate(entries)}
        super().__init__(path, [part], places=places, extras=extras)
        self._buffers = {entry.name for entry in entries if entry.is_buffer}
        seen: set[int] = set()
        # TorchScript removes a tensor's further names where PyTorch's own named_parameters would.
        self._distinct = [
            entry.name
            for entry in entries
            if not removes_duplicates or not (id(entry.stored) in seen or seen.add(id(entry.stored)))  # type: ignore[func-returns-value]
        ]

    def _listed(self, *, buffers: bool, remove_duplicate: bool) -> list[str]:
        names: Iterable[str] = self._distinct if remove_duplicate else self
        return list(names) if buffers else [name for name in names if name not in self._buffers]

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The parameters, as the loaded program's own method lists them."""
        return ((name, self[name]) for name in self._listed(buffers=False, remove_duplicate=True))

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """The buffers, as the loaded program's own method lists them."""
        return ((name, self[name]) for name in self._distinct if name in self._buffers)


class StoredPart:
    """The tensors of one file, made when they are asked for.

    A member that is compressed, or not aligned as a tensor must be, is read at once and held.
    """

    def __init__(self, path: Path, file: BinaryIO, entries: Sequence[Entry]) -> None:
        """Raises ValueError for an entry whose member is not there, or too short for it."""
        self.path = path
        self._map = MappedFile(path, file)
        self._entries = entries
        self._homes: list[_Home] = []
        self._live: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()
        homes: dict[tuple[int, str], _Home] = {}
        for entry in entries:
            key = id(entry.archive), entry.member
            if key not in homes:
                homes[key] = _home(entry.archive, entry.member)
            self._homes.append(homes[key])
            self._check(entry, homes[key].size)

    def _check(self, entry: Entry, size: int) -> None:
        stored = entry.stored
        try:
            check_layout(stored.dtype, stored.offset, stored.shape, stored.stride, size)
        except PickleError as error:
            raise ValueError(f"{self.path}: entry {entry.name!r} in {entry.member!r}: {error}") from None

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
        stored, home = self._entries[position].stored, self._homes[position]
        if 0 in stored.shape or home.copy is not None:
            return None
        begin = home.place + stored.offset * stored.dtype.itemsize
        return ByteRange(self.path, begin, begin + _span(stored) * stored.dtype.itemsize)

    def tensor(self, position: int) -> Tensor:
        stored = self._entries[position].stored
        made = self._live.get(id(stored))
        if made is None:
            made = self._live[id(stored)] = self._made(stored, self._homes[position])
        return made

    def _made(self, stored: StoredTensor, home: _Home) -> Tensor:
        size = stored.dtype.itemsize
        if 0 in stored.shape:
            data = torch.empty_strided(stored.shape, stored.stride, dtype=stored.dtype)
        elif home.copy is not None:
            flat = home.copy[: home.copy.numel() // size * size].view(stored.dtype)
            data = flat.as_strided(stored.shape, stored.stride, stored.offset)
        else:
            data = self._map.tensor(home.place + stored.offset * size, stored.dtype, (_span(stored),))
            data = data.as_strided(stored.shape, stored.stride)
        if stored.parameter:
            return nn.Parameter(data, requires_grad=stored.requires_grad)
        return data.requires_grad_(stored.requires_grad)

    def release(self, position: int) -> None:
        place = self.byte_range(position)
        if place is not None:
            self._map.release(place.begin, place.end)

    def close(self) -> None:
        self._map.close()


def _span(stored: StoredTensor) -> int:
    """How many elements lie between the first and the last, both counted."""
    return 1 + sum((n - 1) * step for n, step in zip(stored.shape, stored.stride, strict=True))


class _Home(NamedTuple):
    """Where a storage is: at a place of the file, or read already."""

    place: int
    size: int
    copy: Tensor | None


def _home(archive: Archive, member: str) -> _Home:
    place, size = archive.place(member), archive.members[member].size
    if size and (not archive.is_stored(member) or place % _ALIGNMENT):
        return _Home(place, size, torch.frombuffer(bytearray(archive.read(member)), dtype=torch.uint8))
    return _Home(place, size, None)
