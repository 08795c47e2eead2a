"""What numpy writes: one array (``.npy``), or a zip archive of them (``.npz``).

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Arrays of objects are pickles, and are
not read; nor are texts, records and numbers that torch has no dtype for. numpy itself is not needed.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from pyparam._sources.archive import Archive
from pyparam._sources.bounds import Names
from pyparam._sources.checkpoint import ByteRange, Checkpoint, TensorInfo
from pyparam._sources.mapped import MappedFile
from pyparam._sources.saved_archive import Unread
from pyparam._sources.stored import MOST_DIMENSIONS, contiguous_stride

MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000  # as numpy itself reads
_LOOKED_AT = _LONGEST_HEADER + 12

_DTYPES = {
    "b1": torch.bool,
    "i1": torch.int8,
    "u1": torch.uint8,
    "i2": torch.int16,
    "u2": torch.uint16,
    "f2": torch.float16,
    "i4": torch.int32,
    "u4": torch.uint32,
    "f4": torch.float32,
    "i8": torch.int64,
    "u8": torch.uint64,
    "f8": torch.float64,
    "c8": torch.complex64,
    "c16": torch.complex128,
}
_DESCR = re.compile(r"'descr'\s*:\s*'(?P<order>[<>|=])(?P<kind>\w+)'")
_FORTRAN = re.compile(r"'fortran_order'\s*:\s*(True|False)")
_SHAPE = re.compile(r"'shape'\s*:\s*\((?P<sizes>[\d,\sL]*)\)")


class _Array(NamedTuple):
    """One array: ``header`` bytes, and then its elements."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    fortran: bool
    swapped: bool
    header: int
    place: int = 0
    """Where in the file the header begins, or the compressed bytes do."""
    packed: str | None = None
    """The compressed member that it is."""

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def open_array(path: Path, file: BinaryIO) -> Checkpoint:
    """Opens a file of one array, which is named "0".

    Raises ValueError that names the file for one that is damaged, or no array of numbers.
    """
    mapped = MappedFile(path, file)
    array = _described(str(path), "0", bytes(mapped.read(0, min(mapped.size, _LOOKED_AT))))
    if isinstance(array, Unread):
        raise ValueError(f"{path} is not read: {array.why}")
    if array.header + array.nbytes > mapped.size:
        raise ValueError(
            f"{path} is truncated: {array.nbytes} bytes of shape {list(array.shape)} begin at {array.header}"
        )
    return _NumpyCheckpoint(path, _Part(path, mapped, None, [array]), {}).written_in("numpy (.npy)")


def is_npz(archive: Archive) -> bool:
    return bool(archive.members) and all(name.endswith(".npy") for name in archive.members)


def open_archive(path: Path, file: BinaryIO, archive: Archive) -> Checkpoint:
    """Opens an archive of arrays by their headers. What is no array of numbers is among ``extras``.

    Raises ValueError that names the file, and the member, for one that is damaged.
    """
    mapped = MappedFile(path, file)
    names = Names(path, mapped.size)
    arrays: list[_Array] = []
    extras: dict[str, Any] = {}
    for member in archive.members.values():
        name = member.name.removesuffix(".npy")
        names.spend(name)
        start = archive.start(member.name, _LOOKED_AT)
        found = _described(f"{path}: its member {member.name!r}", name, start)
        if isinstance(found, Unread):
            extras[name] = found
        elif found.header + found.nbytes > member.size:
            raise ValueError(f"{path}: its member {member.name!r} is truncated, or not of its shape")
        else:
            packed = None if archive.is_stored(member.name) else member.name
            if packed is not None:
                archive.count_unpacked(packed)
            arrays.append(found._replace(place=archive.place(member.name), packed=packed))
    return _NumpyCheckpoint(path, _Part(path, mapped, archive, arrays), extras).written_in("numpy (.npz)")


def _described(where: str, name: str, start: bytes) -> _Array | Unread:
    if not start.startswith(MAGIC) or len(start) < 12:
        raise ValueError(f"{where} is no numpy array, or is truncated")
    long = start[6] > 1
    (length,) = struct.unpack_from("<I" if long else "<H", start, 8)
    begin = 12 if long else 10
    if start[6] not in (1, 2, 3) or length > _LONGEST_HEADER:
        raise ValueError(f"{where} has a header that is not read (version {start[6]}, {length} bytes)")
    if begin + length > len(start):
        raise ValueError(f"{where} is truncated in its header")
    text = start[begin : begin + length].decode("latin-1")
    descr, fortran, shape = _DESCR.search(text), _FORTRAN.search(text), _SHAPE.search(text)
    if fortran is None or shape is None:
        raise ValueError(f"{where} has a damaged header: {text.strip()[:80]!r}")
    if descr is None or descr["kind"] not in _DTYPES:
        kind = "records" if descr is None else f"the type {descr['order']}{descr['kind']}"
        objects = descr is not None and descr["kind"].startswith("O")
        return Unread(
            "it is a pickle of objects" if objects else f"its elements are {kind}, no plain numbers"
        )
    sizes = tuple(int(size) for size in re.findall(r"\d+", shape["sizes"][:2_000]))
    if len(sizes) > MOST_DIMENSIONS or math.prod(sizes) * 16 >= 1 << 63:
        raise ValueError(f"{where} has {len(sizes)} dimensions, or more elements than can be")
    dtype = _DTYPES[descr["kind"]]
    swapped = descr["order"] == ">" and dtype.itemsize > 1
    return _Array(name, dtype, sizes, fortran[1] == "True", swapped, begin + length)


class _NumpyCheckpoint(Checkpoint):
    """In an archive arrays begin at any byte, so tensors of them are copies, made when they are asked for."""

    __slots__ = ()

    def __init__(self, path: Path, part: _Part, extras: dict[str, Any]) -> None:
        super().__init__(path, [part], extras=extras)
        self._makes_tensors = not all(map(part.is_mapped, range(len(part.names))))


class _Part:
    def __init__(
        self, path: Path, file: MappedFile, archive: Archive | None, arrays: Sequence[_Array]
    ) -> None:
        self.path = path
        self._map = file
        self._archive = archive
        self._arrays = arrays

    @property
    def file(self) -> MappedFile:
        return self._map

    @property
    def names(self) -> list[str]:
        return [array.name for array in self._arrays]

    def info(self, position: int) -> TensorInfo:
        array = self._arrays[position]
        return TensorInfo(array.dtype, array.shape, array.nbytes)

    def is_mapped(self, position: int) -> bool:
        """Whether the elements lie in the file as a tensor needs them."""
        array, begin = self._arrays[position], self._begin(position)
        return begin is not None and begin % array.dtype.itemsize == 0 and not array.swapped

    def _begin(self, position: int) -> int | None:
        """Where the elements begin in the file; None where they are compressed."""
        array = self._arrays[position]
        return array.place + array.header if array.packed is None else None

    def byte_range(self, position: int) -> ByteRange | None:
        begin, nbytes = self._begin(position), self._arrays[position].nbytes
        return None if begin is None or not nbytes else ByteRange(self.path, begin, begin + nbytes)

    def tensor(self, position: int) -> Tensor:
        array = self._arrays[position]
        if array.packed is not None:
            flat = self._inflated(array, array.packed)
        else:
            flat = self._map.tensor(array.place + array.header, array.dtype, (math.prod(array.shape),))
        if array.swapped:
            flat = _swapped(flat)
        if not array.fortran:
            return flat.reshape(array.shape)
        return flat.as_strided(array.shape, contiguous_stride(array.shape[::-1])[::-1])

    def _inflated(self, array: _Array, name: str) -> Tensor:
        assert self._archive is not None
        packed = self._map.read(array.place, self._archive.members[name].packed)
        raw = bytearray(self._archive.unpacked(name, packed))
        if not array.nbytes:
            return torch.empty(0, dtype=array.dtype, device="cpu")
        count = math.prod(array.shape)
        if array.header % array.dtype.itemsize:
            raw = raw[array.header :]
            return torch.frombuffer(raw, dtype=array.dtype, count=count)
        return torch.frombuffer(raw, dtype=array.dtype, count=count, offset=array.header)

    def close(self) -> None:
        self._map.close()


def _swapped(flat: Tensor) -> Tensor:
    size = flat.dtype.itemsize // (2 if flat.is_complex() else 1)
    return flat.view(torch.uint8).view(-1, size).flip(1).reshape(-1).view(flat.dtype)
