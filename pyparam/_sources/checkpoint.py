"""Checkpoint: the tensors of one or several files, by name, without reading them; formats give its parts."""

from __future__ import annotations

import math
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, runtime_checkable

import torch
from torch import Tensor

from pyparam._base.batches import batches
from pyparam._base.closest import missing
from pyparam._base.native import _C
from pyparam._base.wrappers import Names
from pyparam._sources.mapped import MappedFile, pristine
from pyparam._sources.mapped_table import MappedTable
from pyparam._sources.places import Places
from pyparam._sources.stand_in import listed
from pyparam._sources.table import ParamTable

if TYPE_CHECKING:
    from typing_extensions import Self


class CheckpointWarning(UserWarning):
    """Something about a checkpoint's files that whoever opens it should know, and that stops nobody."""


class TensorInfo(NamedTuple):
    """What a file's header says of a tensor: ``dtype``, ``shape``, and ``nbytes``, which counts its elements,
    ``numel * itemsize``."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int


class ByteRange(NamedTuple):
    """Where a tensor's bytes lie: ``[begin, end)`` of a file."""

    file: Path
    begin: int
    end: int


class Part(Protocol):
    """The tensors of one file, by position."""

    @property
    def path(self) -> Path: ...
    @property
    def file(self) -> MappedFile | None: ...
    @property
    def names(self) -> Sequence[str]: ...
    def info(self, position: int) -> TensorInfo: ...
    def byte_range(self, position: int) -> ByteRange | None: ...
    def tensor(self, position: int) -> Tensor: ...
    def close(self) -> None: ...


@runtime_checkable
class Mapped(Protocol):
    """A part whose tensors native code can make: contiguous ones over one map."""

    def mapped(self) -> tuple[_C.MappedEntries, _C.MappedBytes]: ...


class Checkpoint(Mapping[str, Tensor]):
    """A read-only mapping from names to the tensors of a checkpoint on disk, in the order of its files.

    Tensors lie over a private memory map: their bytes are read when they are used, and writing to one changes
    this process's copy, never the file. A name gives the same tensor object while someone holds it. A file
    must not be truncated while it is open here.

    Two checkpoints are equal when they are the same object. As a context manager it closes at the end;
    tensors taken before stay valid.
    """

    __slots__ = (
        "__weakref__",
        "_by_name",
        "_closed",
        "_extras",
        "_format",
        "_live",
        "_makes_tensors",
        "_metadata",
        "_parts",
        "_path",
        "_places",
        "_table",
        "_versions",
    )

    def __init__(
        self,
        path: Path,
        parts: Sequence[Part],
        *,
        places: Mapping[str, int] | None = None,
        metadata: Mapping[str, Any] | None = None,
        extras: Mapping[str, Any] | None = None,
        versions: Mapping[str, Any] | None = None,
    ) -> None:
        """``places`` says where a name is, as ``position * len(parts) + part``; left out, there is one part.

        One number a name, and no object an entry: the garbage collector has nothing to follow.
        """
        self._path = path
        self._parts = tuple(parts)
        if places is None:
            (part,) = parts
            places = {name: position for position, name in enumerate(part.names)}
        self._places = Places.of(places)
        self._by_name = Names(self._places)
        self._metadata = dict(metadata or {})
        self._extras = dict(extras or {})
        # What state_dict() of a module adds as _metadata, by the dotted name of the state dict.
        self._versions = dict(versions or {})
        self._live: weakref.WeakValueDictionary[str, Tensor] = weakref.WeakValueDictionary()
        # The last table, while someone holds it: its tensors are those that names give.
        self._table: weakref.ref[ParamTable] | None = None
        self._closed = False
        self._makes_tensors = False
        self._format = ""

    @property
    def format(self) -> str:
        """What its files are written in, such as "safetensors"; "" where no file was opened for it."""
        return self._format

    def written_in(self, format: str) -> Self:
        """The same checkpoint, of which is known what it is written in."""
        self._format = format
        return self

    def over(self, parts: Collection[Checkpoint]) -> Self:
        """The same checkpoint, which puts these together: what is known of them holds of it."""
        self._makes_tensors = any(part.makes_tensors for part in parts)
        return self.written_in(", ".join(dict.fromkeys(part.format for part in parts if part.format)))

    @property
    def path(self) -> Path:
        """What was opened: a file, an index, or a directory."""
        return self._path

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the tensors."""
        return tuple(part.path for part in self._parts)

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
        part, position = self._place(name)
        return part.info(position)

    def byte_range(self, name: str) -> ByteRange | None:
        """The file and bytes a tensor lies in; a strided tensor's range spans its elements.

        Tensors that share bytes are tied. None for a tensor that does not lie over a file: an empty one, or
        one of the format before torch 1.6, which cannot be mapped. Raises KeyError for an unknown name.
        """
        part, position = self._place(name)
        return part.byte_range(position)

    def release(self, name: str) -> None:
        """Gives the memory that reading a tensor took back to the system; it is read again when next used.

        For streaming through files larger than memory. Writes made to the tensor are undone.
        """
        part, position = self._place(name)
        place = part.byte_range(position)
        if part.file is not None and place is not None:
            part.file.release(place.begin, place.end)

    def faults(self) -> dict[str, str]:
        """Tensors of which is known without reading that they cannot be read, with the reason of each."""
        return {}

    def batches(self, most: int) -> Iterator[list[str]] | None:
        """For a checkpoint whose tensors take memory of their own, the names of about ``most`` bytes at a
        time.

        None where tensors lie over a map, and a reader gives pages back itself.
        """
        return self._batches(most) if self._makes_tensors else None

    def _batches(self, most: int) -> Iterator[list[str]]:
        names = list(self)
        told = map(self.tensor_info, names)
        for run in batches((math.prod(info.shape) * info.dtype.itemsize for info in told), most):
            yield names[run.start : run.stop]

    @property
    def makes_tensors(self) -> bool:
        """Whether its tensors take memory of their own: they are put together or dequantized."""
        return self._makes_tensors

    def listing(self) -> ParamTable:
        """All of it as a table, in which tensors that would take memory of their own are stand-ins."""
        if not self._makes_tensors:
            return self.table()
        return ParamTable(list(self), [listed(self, name) for name in self])

    def spare_maps(self) -> list[tuple[int, int]]:
        """Address and size of the mapped files whose pages a reader may give back behind itself.

        None of them while someone holds a tensor of the checkpoint, and none that was written to.
        """
        return [file.span() for file in self.spare_files()]

    def spare_files(self) -> list[MappedFile]:
        """The files of ``spare_maps``."""
        if self._live or self._closed or self._tabled() is not None:
            return []
        return pristine(self.mapped_files())

    def mapped_files(self) -> list[MappedFile]:
        """The files whose bytes its tensors are, for native code, which leaves pages that were written to."""
        return [file for part in self._parts if (file := part.file) is not None and not file.closed]

    def aliases(self) -> list[str]:
        """Names that stand in the metadata alone, each for a tensor that a file has under another name.

        ``safetensors.torch.save_model`` writes them for tied parameters.
        """
        found = [
            name
            for name, other in self._metadata.items()
            if isinstance(other, str)
            and name in self._places
            and self._places[name] == self._places.get(other)
        ]
        listed = [part.names for part in self._parts] if found else []

        def in_file(name: str) -> str:
            position, part = divmod(self._places[name], len(listed))
            return listed[part][position]

        return [name for name in found if in_file(name) != name]

    @property
    def is_whole(self) -> bool:
        """Whether it lists all the tensors that its files do."""
        return len(self._places) >= sum(len(part.names) for part in self._parts)

    def picked(self, names: Sequence[str], under: Sequence[str], prefix: str = "") -> Checkpoint:
        """Some of the tensors under other names, over the same files; extras are those below ``prefix``."""
        places = {new: self._places[name] for name, new in zip(names, under, strict=True)}
        extras = {k.removeprefix(prefix): v for k, v in self._extras.items() if k.startswith(prefix)}
        versions = {} if prefix else self._versions
        if prefix.removesuffix(".") in self._versions:
            versions = {"": self._versions[prefix.removesuffix(".")]}
        made = self._blank()
        Checkpoint.__init__(
            made,
            self._path,
            self._parts,
            places=places,
            metadata=self._metadata,
            extras=extras,
            versions=versions,
        )
        made._makes_tensors = self._makes_tensors
        return made.written_in(self._format)

    def _blank(self) -> Checkpoint:
        """What ``picked`` makes a checkpoint of. A part of a program is none: it only lists tensors."""
        return Checkpoint.__new__(Checkpoint)

    def _listed(self, *, buffers: bool, remove_duplicate: bool) -> list[str]:
        """The names a table has. Only a program tells parameters from buffers, and repeats from tensors."""
        return list(self)

    def __getitem__(self, name: str) -> Tensor:
        own = self._own_name(name)  # one object, by whatever name it is asked for
        tensor = self._live.get(own)
        if tensor is None:
            if self._closed:
                raise ValueError(f"{self._path} is closed")
            table = self._tabled()
            if table is None:
                part, position = self._place(own)
                tensor = part.tensor(position)
            else:
                tensor = table[own]
            self._live[own] = tensor
        return tensor

    def _tabled(self) -> ParamTable | None:
        return None if self._table is None else self._table()

    def table(self) -> ParamTable:
        """All of it as a table, which has no tensors until they are asked for where every file is mapped.

        Raises ValueError where it is closed.
        """
        if self._closed:
            raise ValueError(f"{self._path} is closed")
        table = self._tabled()
        if table is None:
            mapped = [part.mapped() for part in self._parts if isinstance(part, Mapped)]
            if len(mapped) == len(self._parts):
                live = dict(self._live)
                rows = (
                    {row: live[name] for row, name in enumerate(self._places) if name in live} if live else {}
                )
                made = _C.MappedRows(mapped, self._places.numbers)
                table = MappedTable.over(made, list(self._places), rows)
            else:
                table = ParamTable(list(self), list(self.values()))
            self._table = weakref.ref(table)
        return table

    def _own_name(self, name: str) -> str:
        own = self._by_name.listed(name)
        if own is None:
            raise missing(name, self._places, f"checkpoint {str(self._path)!r}")
        return own

    def _place(self, name: str) -> tuple[Part, int]:
        position, part = divmod(self._places[self._own_name(name)], len(self._parts))
        return self._parts[part], position

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return self._by_name.find(name) is not None

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called, after which no tensor can be read any more."""
        return self._closed

    def close(self) -> None:
        """Lets go of the files.

        Names and infos stay, and tensors taken before stay valid; taking another raises ValueError.
        """
        self._closed = True
        self._live.clear()
        self._table = None
        for part in self._parts:
            part.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        total = sum(self.tensor_info(name).nbytes for name in self)
        facts = [_counted(len(self), "tensor"), _in_units(total), _counted(len(self.files), "file")]
        if self._closed:
            facts.append("closed")
        return f"<Checkpoint {str(self._path)!r}: {', '.join(facts)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Checkpoint stands for open files and cannot be pickled or copied; pickle its path")


def accepts(source: object) -> bool:
    return isinstance(source, Checkpoint)


def table(source: Any, *, buffers: bool, remove_duplicate: bool) -> ParamTable:
    names = source._listed(buffers=buffers, remove_duplicate=remove_duplicate)
    if names == list(source):
        everything: ParamTable = source.table()
        return everything
    return ParamTable(names, [source[name] for name in names])


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _in_units(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
