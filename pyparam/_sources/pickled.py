"""What ``torch.save`` writes (.pt, .pth, .bin, .ckpt): pickles, read without running any code of the file's.

A pickle is first read as plain data. Plain tensors, which nearly all are, lie over a memory map of the file
and are made when they are asked for. Where a file holds more (sparse tensors, subclasses, classes the user
declared safe), torch's own loader of weights makes it.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from pyparam._base.words import a_name
from pyparam._sources import nested
from pyparam._sources.archive import Archive
from pyparam._sources.bounds import Names
from pyparam._sources.checkpoint import ByteRange, Checkpoint, TensorInfo
from pyparam._sources.legacy import LegacyFile, is_legacy
from pyparam._sources.listing import ListedPart
from pyparam._sources.mapped import MappedFile
from pyparam._sources.saved_world import SavedWorld
from pyparam._sources.stored import StorageKey, StoredTensor
from pyparam._sources.stored_part import Entry, Home, Homes, part_of
from pyparam._sources.tar_file import TarFile, TarWorld, is_tar
from pyparam._sources.unpickle import NeedsCode, PickleError, unpickled

__all__ = ["is_legacy", "is_tar", "open_legacy", "open_tar", "open_zip"]

_NEEDS_CODE = re.compile(
    r"unsupported global|allowlist|blocked|REDUCE|must be imported|Can only build|new object", re.I
)
_REFERENCE = re.compile(r"GLOBAL ([\w.]+)|<(?:class|function|built-in function) '?([\w.]+)")
_LONGEST = 6 << 20
"""A pickle may unpack to this, plus four times the archive's size."""


def open_zip(path: Path, file: BinaryIO, archive: Archive, *, listing: bool = False) -> Checkpoint:
    """Opens a zip archive with a ``data.pkl``.

    Raises ValueError for a file that needs code to load, unless it is only to be listed, and for one that is
    corrupt.
    """
    pickles = [name for name in archive.members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) > 1:
        raise ValueError(f"{path} cannot be read as a PyTorch checkpoint: it has {len(pickles)} data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    world = SavedWorld(listing=listing)
    loaded = _plain(path, lambda: unpickled(archive.read(pickles[0], _LONGEST + 4 * archive.length), world))
    order = f"{root}byteorder"
    swapped = order in archive and archive.read(order, 16).strip() not in (b"little", b"")
    if (world.is_plain and not swapped) or world.refused:
        homes = Homes(archive)
        return _described(path, file, loaded, lambda key: homes.of(f"{root}data/{key.key}"), world)
    if _is_stored(archive):
        mapped = MappedFile(path, file)
        opened = _checkpoint(path, _unpickled(path, lambda: _load_mapped(path, mapped)), mapped)
        if all(_is_aligned(tensor) for tensor in opened.values()):
            return opened
    return _open_whole(path, file)


def open_legacy(path: Path, file: BinaryIO, *, listing: bool = False) -> Checkpoint:
    """Opens a file in the format torch wrote before 1.6.

    Raises ValueError for a file that needs code to load, unless it is only to be listed, and for one that is
    corrupt.
    """
    world = SavedWorld(listing=listing)
    legacy = _plain(path, lambda: LegacyFile(path, file, world))
    if legacy.is_plain or world.refused:
        return _described(path, file, legacy.loaded, legacy.home, world)
    return _open_whole(path, file)


def open_tar(path: Path, file: BinaryIO, *, listing: bool = False) -> Checkpoint:
    """Opens a file in the format torch wrote before 0.1.10.

    Raises ValueError for a file that needs code to load, unless it is only to be listed, for one that is
    corrupt, and for another tar archive.
    """
    world = TarWorld(listing=listing)
    read = _plain(path, lambda: TarFile(path, file, world))
    if not (world.is_plain or world.refused):
        raise ValueError(
            f"{path} cannot be read as a PyTorch checkpoint: it is of before 0.1.10, and holds tensors that "
            "are not plain"
        )
    return _described(path, file, read.loaded, read.home, world)


def _plain(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except NeedsCode as error:
        raise _needs_code(path, str(error)) from None
    except PickleError as error:
        raise ValueError(f"{path} cannot be read as a PyTorch checkpoint: {error}") from None


def _described(
    path: Path, file: BinaryIO, loaded: Any, home: Callable[[StorageKey], Home], world: SavedWorld
) -> Checkpoint:
    """A checkpoint of the tensors that a pickle describes."""
    extras: dict[str, Any] = {}
    tensors = _flattened(path, loaded, StoredTensor, extras, path.stat().st_size)
    if world.refused:
        why = f"it refers to {', '.join(world.refused[:4])}"
        return Checkpoint(path, [ListedPart(path, tensors, str(_needs_code(path, why)))], extras=extras)
    entries = [Entry(name, tensor, home(tensor.storage)) for name, tensor in tensors.items()]
    versions = nested.versions(loaded)
    return Checkpoint(path, [part_of(path, file, entries)], extras=extras, versions=versions)


def _open_whole(path: Path, file: BinaryIO) -> Checkpoint:
    file.seek(0)
    loaded = _unpickled(path, lambda: torch.load(file, map_location="cpu", weights_only=True, mmap=False))
    return _checkpoint(path, loaded, None)


def _unpickled(path: Path, load: Callable[[], Any]) -> Any:
    try:
        with warnings.catch_warnings():
            # A warning of an unusual pickle protocol: where it cannot be read, that is an error of its own.
            warnings.simplefilter("ignore")
            return load()
    except Exception as error:
        _refuse(path, error)


def _load_mapped(path: Path, mapped: MappedFile) -> Any:
    """As ``torch.load(path, weights_only=True, mmap=True)``, over a map that may be larger than memory.

    torch makes its own map, which Linux refuses for a file larger than memory, and keeps where it lies to
    itself.
    """
    try:
        from torch import _weights_only_unpickler as unpickler
        from torch.serialization import _load, _open_zipfile_reader
    except ImportError:  # pragma: no cover - a torch with other internals
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    with _open_zipfile_reader(str(path)) as reader:
        storage = mapped.storage()
        load: Callable[..., Any] = _load
        return load(reader, "cpu", unpickler, overall_storage=storage, encoding="utf-8")


def _is_stored(archive: Archive) -> bool:
    """Whether tensors lie in the file as in memory: torch writes them so, other tools may compress."""
    return all(map(archive.is_stored, archive.members))


def _is_aligned(tensor: Tensor) -> bool:
    address = _address(tensor)
    return address is None or address % tensor.element_size() == 0


def _address(tensor: Tensor) -> int | None:
    """Where a tensor's first element lies, or None for one that is not strided memory."""
    if is_lazy(tensor) or tensor.layout != torch.strided or tensor.is_nested:
        return None
    try:
        return tensor.data_ptr() or None
    except RuntimeError:  # a wrapper subclass
        return None


def _refuse(path: Path, error: Exception) -> NoReturn:
    text = str(error)
    if isinstance(error, pickle.UnpicklingError) and _NEEDS_CODE.search(text):
        found = _REFERENCE.search(text)
        what = f"it refers to {found[1] or found[2]}" if found else _first_line(text)
        raise _needs_code(path, what) from None
    raise ValueError(
        f"{path} cannot be read as a PyTorch checkpoint: {_first_line(text) or type(error).__name__}"
    ) from error


def _needs_code(path: Path, what: str) -> ValueError:
    return ValueError(
        f"{path} is refused: it needs code to load ({what}). To share weights, save model.state_dict(). If "
        "you know that class and trust it, declare it with torch.serialization.safe_globals while you open "
        "the file; open(path, refused='list') lists names and shapes without it. If all else fails and you "
        "trust the file, torch.load(path, weights_only=False) runs whatever the file says; pass the result"
    )


def _first_line(text: str) -> str:
    """The reason, which torch puts after its advice."""
    reason = text.partition("WeightsUnpickler error:")[2] or text
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return lines[0][:300] if lines else ""


def _flattened(path: Path, loaded: Any, kind: type, extras: dict[str, Any], size: int) -> dict[str, Any]:
    """The tensors of ``kind`` by dotted name; what else there is goes to ``extras``."""
    if isinstance(loaded, kind):
        loaded = [loaded]
    if not nested.is_container(loaded):
        what = getattr(loaded, "kind", None) or type(loaded).__name__
        raise ValueError(f"{path} holds {a_name(str(what))}; expected tensors by name")
    try:
        tensors = nested.flatten(loaded, extras.__setitem__, kind=kind, names=Names(path, size))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return tensors


def _checkpoint(path: Path, loaded: Any, mapped: MappedFile | None) -> Checkpoint:
    extras: dict[str, Any] = {}
    tensors = _flattened(path, loaded, Tensor, extras, path.stat().st_size)
    versions = nested.versions(loaded)
    return Checkpoint(path, [_Part(path, tensors, mapped)], extras=extras, versions=versions)


class _Part:
    """Tensors already made, over a map of the file where there is one."""

    __slots__ = ("_base", "_file", "_names", "_tensors", "path")

    def __init__(self, path: Path, tensors: dict[str, Tensor], file: MappedFile | None) -> None:
        self.path = path
        self._names = list(tensors)
        self._tensors = list(tensors.values())
        self._file = file
        self._base = 0 if file is None else file.storage().data_ptr()

    @property
    def file(self) -> MappedFile | None:
        return self._file

    @property
    def names(self) -> list[str]:
        return self._names

    def info(self, position: int) -> TensorInfo:
        return _info(self._tensors[position])

    def byte_range(self, position: int) -> ByteRange | None:
        tensor = self._tensors[position]
        address = _address(tensor)
        if self._file is None or address is None or tensor.numel() == 0:
            return None
        extents = zip(tensor.shape, tensor.stride(), strict=True)
        last = sum((extent - 1) * stride for extent, stride in extents)
        begin = address - self._base
        end = begin + (last + 1) * tensor.element_size()
        return ByteRange(self.path, begin, end) if 0 <= begin < end <= self._file.size else None

    def tensor(self, position: int) -> Tensor:
        return self._tensors[position]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _info(tensor: Tensor) -> TensorInfo:
    if is_lazy(tensor):
        return TensorInfo(tensor.dtype, (), 0)
    if tensor.is_nested:
        return TensorInfo(tensor.dtype, (tensor.size(0),), tensor.numel() * tensor.element_size())
    return TensorInfo(tensor.dtype, tuple(tensor.shape), tensor.numel() * tensor.element_size())
