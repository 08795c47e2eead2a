"""The format ``torch.save`` wrote before 1.6: pickles one after the other, then the storages' bytes."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any, BinaryIO

from pyparam._sources.plain_world import PlainWorld
from pyparam._sources.saved_world import SavedWorld
from pyparam._sources.stored import StorageKey
from pyparam._sources.stored_part import Home
from pyparam._sources.unpickle import Machine, PickleError

# How a file begins: the pickle, of any protocol, of one number.
_NUMBER = 0x1950A86A20F9469CFC6C
_BEGINNINGS = (_NUMBER.to_bytes(10, "little"), str(_NUMBER).encode())
_VERSION = 1001
_LENGTH = 8


def is_legacy(start: bytes) -> bool:
    """Whether a file begins as this format does."""
    return any(magic in start[:40] for magic in _BEGINNINGS)


class LegacyFile:
    """A file's object, and where its storages are."""

    def __init__(self, path: Path, file: BinaryIO, world: SavedWorld) -> None:
        """Raises PickleError for a file that is damaged, or that needs code."""
        self._path = path
        self._world = world
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            self._position = 0
            number, version, system = (self._next(data, PlainWorld()) for _ in range(3))
            if number != _NUMBER or version != _VERSION:
                raise PickleError(f"its version is {version!r}; expected {_VERSION}")
            self._swapped = isinstance(system, dict) and system.get("little_endian") is False
            self.loaded = self._next(data, world)
            keys = self._next(data, PlainWorld())
            if not isinstance(keys, list):
                raise PickleError("it does not list its storages")
            self._homes: dict[str, Home] = {}
            if self.is_plain or world.refused:
                self._place(data, keys, world.storages)

    @property
    def is_plain(self) -> bool:
        """Whether its tensors are plain, and lie as this machine reads them."""
        return self._world.is_plain and not self._swapped

    def home(self, key: StorageKey) -> Home:
        """Raises ValueError for a storage that the file does not have."""
        found = self._homes.get(key.key)
        if found is None:
            raise ValueError(f"{self._path} has no storage {key.key!r}")
        return found

    def _next(self, data: Any, world: Any) -> Any:
        machine = Machine(data, world, start=self._position)
        value = machine.run()
        self._position = machine.position
        return value

    def _place(self, data: Any, keys: list[Any], storages: dict[str, StorageKey]) -> None:
        position = self._position
        for key in keys:
            storage = storages.get(str(key))
            if storage is None:
                raise PickleError(f"it has a storage {key!r} that nothing refers to")
            elements = int.from_bytes(data[position : position + _LENGTH], "little")
            begin = position + _LENGTH
            position = begin + storage.nbytes
            if elements != storage.elements or position > len(data):
                raise PickleError(f"the storage {key!r} is truncated")
            self._homes[storage.key] = Home(f"storage {key}", begin, storage.nbytes)
