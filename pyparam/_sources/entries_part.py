"""Tensors of a file as columns: each contiguous, with bytes of its own."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from pyparam._base.native import _C
from pyparam._sources.checkpoint import ByteRange, TensorInfo
from pyparam._sources.mapped import MappedFile


class EntriesPart:
    """The tensors of one file: what its header says, in torch's terms, and bytes of its map.

    Of the header itself nothing is held: of half a million tensors it is as large as all else that is known
    of them.
    """

    __slots__ = ("_entries", "_file", "names")

    def __init__(self, names: list[str], entries: _C.MappedEntries, file: MappedFile) -> None:
        self.names = names
        self._entries = entries
        self._file = file

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def file(self) -> MappedFile:
        return self._file

    def info(self, position: int) -> TensorInfo:
        begin, end = self._entries.byte_range(position)
        return TensorInfo(self._entries.dtype(position), self._entries.shape(position), end - begin)

    def byte_range(self, position: int) -> ByteRange:
        return ByteRange(self._file.path, *self._entries.byte_range(position))

    def tensor(self, position: int) -> Tensor:
        entries = self._entries
        begin, _ = entries.byte_range(position)
        return self._file.tensor(begin, entries.dtype(position), entries.shape(position))

    def mapped(self) -> tuple[_C.MappedEntries, _C.MappedBytes]:
        return self._entries, self._file.bytes()

    def close(self) -> None:
        self._file.close()
