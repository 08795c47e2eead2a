"""What ``torch.save`` writes (.pt, .pth, .bin, .ckpt): pickles, read without running any code of the file's.

The file's skeleton is read through torch's weights-only unpickler; tensors lie over a memory map of the file.
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

from pyparam._sources import nested
from pyparam._sources.archive import Archive
from pyparam._sources.checkpoint import ByteRange, Checkpoint, TensorInfo
from pyparam._sources.mapped import MappedFile

# How a file in the format before zip archives begins: the pickle, of any protocol, of one number.
_LEGACY = (b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", b"119547037146038801333356")

_NEEDS_CODE = re.compile(
    r"unsupported global|allowlist|blocked|REDUCE|must be imported|Can only build|new object", re.I
)
_REFERENCE = re.compile(r"GLOBAL ([\w.]+)|<(?:class|function|built-in function) '?([\w.]+)")


def is_legacy(start: bytes) -> bool:
    return any(magic in start[:40] for magic in _LEGACY)


def open_zip(path: Path, file: BinaryIO, archive: Archive) -> Checkpoint:
    """Opens a zip archive with a ``data.pkl``.

    Raises ValueError for a file that needs code to load, and for one that is corrupt.
    """
    if _is_plain(archive):
        mapped = MappedFile(path, file)
        opened = _checkpoint(path, _unpickled(path, lambda: _load_mapped(path, mapped)), mapped)
        if all(_is_aligned(tensor) for tensor in opened.values()):
            return opened
    return open_whole(path, file)


def open_whole(path: Path, file: BinaryIO) -> Checkpoint:
    """Reads a file that cannot be mapped into memory, such as one in the format torch wrote before 1.6.

    Raises ValueError for a file that needs code to load, and for one that is corrupt.
    """
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


def _is_plain(archive: Archive) -> bool:
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
        raise ValueError(
            f"{path} is refused: it needs code to load ({what}), and unpickling that would run whatever the "
            "file says. If you trust the file, load it with torch.load(path, weights_only=False) and pass "
            "the result; to share weights, save model.state_dict()"
        ) from None
    if text.lstrip().startswith("Unsupported operand"):
        raise ValueError(
            f"{path} cannot be read: it uses a pickle instruction that torch's loader of weights does not "
            f"know ({_first_line(text)}). If it is not corrupt, save it again with pickle_protocol=2"
        ) from None
    raise ValueError(
        f"{path} cannot be read as a PyTorch checkpoint: {_first_line(text) or type(error).__name__}"
    ) from error


def _first_line(text: str) -> str:
    """The reason, which torch puts after its advice."""
    reason = text.partition("WeightsUnpickler error:")[2] or text
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return lines[0][:300] if lines else ""


def _checkpoint(path: Path, loaded: Any, mapped: MappedFile | None) -> Checkpoint:
    extras: dict[str, Any] = {}
    if isinstance(loaded, Tensor):
        loaded = [loaded]
    if not nested.is_container(loaded):
        raise ValueError(f"{path} holds a {type(loaded).__name__}; expected tensors by name")
    try:
        tensors = nested.flatten(loaded, extras.__setitem__)
        nested.encodable(tensors)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return Checkpoint(path, [_Part(path, tensors, mapped)], extras=extras)


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

    def release(self, position: int) -> None:
        place = self.byte_range(position)
        if self._file is not None and place is not None:
            self._file.release(place.begin, place.end)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _info(tensor: Tensor) -> TensorInfo:
    if is_lazy(tensor):
        return TensorInfo(tensor.dtype, (), 0)
    if tensor.is_nested:
        return TensorInfo(tensor.dtype, (tensor.size(0),), tensor.numel() * tensor.element_size())
    return TensorInfo(tensor.dtype, tuple(tensor.shape), tensor.numel() * tensor.element_size())
