"""The format ``torch.save`` wrote before 0.1.10: a tar archive of storages, tensors and a pickle.

torch's own loader (``legacy_load`` in torch/serialization.py) is the only description there is; it takes such
files with ``weights_only=False`` alone.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from pyparam._sources.saved_world import SavedWorld
from pyparam._sources.stored import StorageKey, StoredTensor, check_layout
from pyparam._sources.stored_part import Home
from pyparam._sources.unpickle import Machine, PickleError, Reference

_BLOCK = 512
_FILE_TYPES = (b"0", b"\0")
_MEMBERS = ("storages", "tensors", "pickle")


def is_tar(start: bytes) -> bool:
    """Whether a file begins as a tar archive does."""
    return start[257:262] == b"ustar"


class TarFile:
    """A file's object, and where its storages are."""

    def __init__(self, path: Path, file: BinaryIO, world: TarWorld) -> None:
        """Raises PickleError for a file that is damaged or needs code, ValueError for another archive."""
        self._homes: dict[str, Home] = {}
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            members = _members(data)
            if any(name not in members for name in _MEMBERS):
                raise ValueError(f"{path} is a tar archive that torch.save did not write: unpack it first")
            storages, tensors, pickled = (_Reader(data, members[name], world) for name in _MEMBERS)
            self._read_storages(storages, world)
            self._read_tensors(tensors, world)
            self.loaded = pickled.value()

    def home(self, key: StorageKey) -> Home:
        return self._homes[key.key]

    def _read_storages(self, reader: _Reader, world: TarWorld) -> None:
        for _ in range(reader.count()):
            key, _, dtype = reader.fields(3)
            if not isinstance(dtype, torch.dtype):
                raise PickleError(f"a storage of {dtype}")
            (elements,) = reader.numbers(1)
            place = reader.position
            reader.skip(elements * dtype.itemsize)
            storage = StorageKey(str(key), dtype, elements)
            self._homes[storage.key] = Home(f"storage {key}", place, storage.nbytes)
            world.add(key, _Part(storage, 0, elements))
        views = reader.value()
        if not isinstance(views, (list, tuple)):
            raise PickleError("it does not list the views of its storages")
        for view in views:
            if not isinstance(view, (list, tuple)) or len(view) != 4:
                raise PickleError("a view of a storage that is none")
            key, root, offset, elements = view
            whole = world.storage(root)
            sizes = (offset, elements)
            if not all(type(n) is int and n >= 0 for n in sizes) or offset + elements > whole.elements:
                raise PickleError(f"a view that reaches beyond the storage {root!r}")
            world.add(key, _Part(whole.whole, whole.begin + offset, elements))

    def _read_tensors(self, reader: _Reader, world: TarWorld) -> None:
        for _ in range(reader.count()):
            key, storage, _ = reader.fields(3)
            whole, begin, elements = world.storage(storage)
            (dimensions,) = struct.unpack("<i4x", reader.take(8))
            if not 0 <= dimensions <= 64:
                raise PickleError(f"a tensor of {dimensions} dimensions")
            shape, stride = reader.numbers(dimensions), reader.numbers(dimensions)
            (offset,) = reader.numbers(1)
            assert whole.dtype is not None
            check_layout(whole.dtype, offset, shape, stride, elements * whole.dtype.itemsize)
            world.add(key, StoredTensor(whole, whole.dtype, begin + offset, shape, stride))


class _Part(NamedTuple):
    """A storage, or a view of one: ``elements`` of the whole from ``begin`` on."""

    whole: StorageKey
    begin: int
    elements: int


class TarWorld(SavedWorld):
    """What a pickle of this format names: objects that lie outside it go by their numbers."""

    def __init__(self, *, listing: bool = False) -> None:
        super().__init__(listing=listing)
        self._objects: dict[int, _Part | StoredTensor] = {}

    def find(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.cuda") and name.endswith("Tensor"):
            return Reference(module, name)  # what a tensor's type was called
        return super().find(module, name)

    def add(self, key: Any, value: _Part | StoredTensor) -> None:
        """Raises PickleError for a number that is none, or that stands for something already."""
        if type(key) is not int or key in self._objects:
            raise PickleError(f"an object under the number {key!r}")
        self._objects[key] = value

    def storage(self, key: Any) -> _Part:
        found = self._objects.get(key) if type(key) is int else None
        if not isinstance(found, _Part):
            raise PickleError(f"it has no storage {key!r}")
        return found

    def persistent(self, reference: Any) -> Any:
        if isinstance(reference, tuple) and reference:
            return reference[0]  # a class, with its source beside it
        try:
            found = self._objects[int(reference)]
        except (TypeError, ValueError, KeyError):
            what = str(reference)[:40]
            raise PickleError(f"it refers to an object {what!r} that it does not have") from None
        return found.whole if isinstance(found, _Part) else found


class _Member(NamedTuple):
    begin: int
    end: int


def _members(data: Any) -> dict[str, _Member]:
    """The files of a tar archive. Raises PickleError for one that is damaged."""
    found: dict[str, _Member] = {}
    position = 0
    while position + _BLOCK <= len(data):
        header = bytes(data[position : position + _BLOCK])
        if not header.strip(b"\0"):
            break
        try:
            name = header[:100].split(b"\0")[0].decode()
            size = int(header[124:136].strip(b"\0 ") or b"0", 8)
        except ValueError:
            raise PickleError(f"the tar archive is damaged at byte {position}") from None
        begin = position + _BLOCK
        if size < 0 or begin + size > len(data):
            raise PickleError(f"its member {name[:80]!r} is truncated")
        if header[156:157] in _FILE_TYPES:
            name = name.removeprefix("./")
            if name in found:
                raise PickleError(f"it has two members {name[:80]!r}")
            found[name] = _Member(begin, begin + size)
        position = begin + -(-size // _BLOCK) * _BLOCK
    return found


class _Reader:
    """Reads one member: pickles, with numbers between them."""

    def __init__(self, data: Any, member: _Member, world: TarWorld) -> None:
        self._data = data
        self.position, self._end = member
        self._world = world

    def value(self) -> Any:
        machine = Machine(self._data, self._world, start=self.position)
        value = machine.run()
        self.skip(machine.position - self.position)
        return value

    def count(self) -> int:
        value = self.value()
        if type(value) is not int or value < 0:
            raise PickleError(f"it counts {str(value)[:40]} objects")
        return value

    def fields(self, count: int) -> tuple[Any, ...]:
        value = self.value()
        if not isinstance(value, (tuple, list)) or len(value) != count:
            raise PickleError("an object that is not described as it should be")
        return tuple(value)

    def numbers(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}q", self.take(8 * count))

    def take(self, count: int) -> bytes:
        begin = self.position
        self.skip(count)
        return bytes(self._data[begin : self.position])

    def skip(self, count: int) -> None:
        if not 0 <= count <= self._end - self.position:
            raise PickleError("it is truncated")
        self.position += count
