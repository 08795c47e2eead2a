"""Checkpoint: the tensors of one or several files, by name, without reading them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from pyparam._closest import missing
from pyparam._sources.mapped import MappedFile
from pyparam._table import ParamTable


class TensorInfo(NamedTuple):
    """What a file's header says of a tensor. ``nbytes`` counts its elements, ``numel * itemsize``."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int


class ByteRange(NamedTuple):
    """Where a tensor's bytes lie: ``[begin, end)`` of a file."""

    file: Path
    begin: int
    end: int


class Entry(NamedTuple):
    """A tensor of a checkpoint: bytes of a mapped file, or one already made, perhaps over them."""

    info: TensorInfo
    file: MappedFile | None
    begin: int = 0
    end: int = 0
    tensor: Tensor | None = None


class Checkpoint(Mapping[str, Tensor]):
    """A read-only mapping from names to the tensors of a checkpoint on disk, in the order of its files.

    Tensors lie over a private memory map: their bytes are read when they are used, and writing to one changes
    this process's copy, never the file. A name gives the same tensor object while someone holds it. A file
    must not be truncated while it is open here.

    Two checkpoints are equal when they are the same object. As a context manager it closes at the end;
    tensors taken before stay valid.
    """

    __slots__ = ("__weakref__", "_closed", "_entries", "_extras", "_files", "_live", "_metadata", "_path")

    def __init__(
        self,
        path: Path,
        entries: dict[str, Entry],
        files: Sequence[Path],
        metadata: Mapping[str, Any] | None = None,
        extras: Mapping[str, Any] | None = None,
    ) -> None:
        self._path = path
        self._entries = entries
        self._files = tuple(files)
        self._metadata = dict(metadata or {})
        self._extras = dict(extras or {})
        self._live: weakref.WeakValueDictionary[str, Tensor] = weakref.WeakValueDictionary()
        self._closed = False

    @property
    def path(self) -> Path:
        """What was opened: a file, an index, or a directory."""
        return self._path

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the tensors."""
        return self._files

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the header or index says besides tensors."""
        return MappingProxyType(self._metadata)

    @property
    def extras(self) -> Mapping[str, Any]:
        """What a pickled checkpoint holds besides tensors, by dotted name.

        A container without any tensor is kept whole, under its own name.
        """
        return MappingProxyType(self._extras)

    def tensor_info(self, name: str) -> TensorInfo:
        """dtype, shape and bytes of a tensor, without touching its data.

        Raises KeyError for an unknown name.
        """
        return self._entry(name).info

    def byte_range(self, name: str) -> ByteRange | None:
        """The file and bytes a tensor lies in; a strided tensor's range spans its elements.

        Tensors that share bytes are tied. None for a tensor that does not lie over a file: an empty one, or
        one of the format before torch 1.6, which cannot be mapped. Raises KeyError for an unknown name.
        """
        entry = self._entry(name)
        if entry.file is None:
            return None
        return ByteRange(entry.file.path, entry.begin, entry.end)

    def release(self, name: str) -> None:
        """Gives the memory that reading a tensor took back to the system; it is read again when next used.

        For streaming through files larger than memory. Writes made to the tensor are undone.
        """
        entry = self._entry(name)
        if entry.file is not None:
            entry.file.release(entry.begin, entry.end)

    def __getitem__(self, name: str) -> Tensor:
        entry = self._entry(name)
        if self._closed:
            raise ValueError(f"{self._path} is closed")
        if entry.tensor is not None:
            return entry.tensor
        tensor = self._live.get(name)
        if tensor is None:
            assert entry.file is not None
            tensor = entry.file.tensor(entry.begin, entry.info.dtype, entry.info.shape)
            self._live[name] = tensor
        return tensor

    def _entry(self, name: str) -> Entry:
        entry = self._entries.get(name) if isinstance(name, str) else None
        if entry is None:
            raise missing(name, self._entries, f"checkpoint {str(self._path)!r}")
        return entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._entries

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Lets go of the files.

        Names and infos stay, and tensors taken before stay valid; taking another raises ValueError.
        """
        self._closed = True
        for file in {id(entry.file): entry.file for entry in self._entries.values()}.values():
            if file is not None:
                file.close()
        self._entries = {name: entry._replace(tensor=None) for name, entry in self._entries.items()}

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        total = sum(entry.info.nbytes for entry in self._entries.values())
        parts = [_counted(len(self), "tensor"), _in_units(total), _counted(len(self._files), "file")]
        if self._closed:
            parts.append("closed")
        return f"<Checkpoint {str(self._path)!r}: {', '.join(parts)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Checkpoint stands for open files and cannot be pickled or copied; pickle its path")


def accepts(source: object) -> bool:
    return isinstance(source, Checkpoint)


def table(source: Any, *, buffers: bool, remove_duplicate: bool) -> ParamTable:
    return ParamTable(list(source), list(source.values()))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _in_units(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
