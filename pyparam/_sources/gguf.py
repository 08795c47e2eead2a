"""GGUF files, as llama.cpp reads them: metadata, tensors, and blocks of quantized values.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The header is parsed here; the package ``gguf`` is
asked for the values of quantized blocks alone.
"""

from __future__ import annotations

import itertools
import math
import struct
import weakref
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import torch
from torch import Tensor

from pyparam._sources.bounds import Names
from pyparam._sources.checkpoint import ByteRange, Checkpoint, TensorInfo
from pyparam._sources.mapped import MappedFile
from pyparam._sources.stand_in import Untold

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
_MOST_DIMENSIONS = 8
_LONGEST_ARRAY = 64
"""A longer array of the metadata, such as a vocabulary, is told by its length."""

_PLAIN = {
    0: torch.float32,
    1: torch.float16,
    24: torch.int8,
    25: torch.int16,
    26: torch.int32,
    27: torch.int64,
    28: torch.float64,
    30: torch.bfloat16,
}


class _Kind(NamedTuple):
    name: str
    values: int
    """In a block."""
    nbytes: int


# ggml.h: enum ggml_type, and the sizes of its blocks.
_BLOCKS = {
    2: _Kind("Q4_0", 32, 18),
    3: _Kind("Q4_1", 32, 20),
    6: _Kind("Q5_0", 32, 22),
    7: _Kind("Q5_1", 32, 24),
    8: _Kind("Q8_0", 32, 34),
    9: _Kind("Q8_1", 32, 40),
    10: _Kind("Q2_K", 256, 84),
    11: _Kind("Q3_K", 256, 110),
    12: _Kind("Q4_K", 256, 144),
    13: _Kind("Q5_K", 256, 176),
    14: _Kind("Q6_K", 256, 210),
    15: _Kind("Q8_K", 256, 292),
    16: _Kind("IQ2_XXS", 256, 66),
    17: _Kind("IQ2_XS", 256, 74),
    18: _Kind("IQ3_XXS", 256, 98),
    19: _Kind("IQ1_S", 256, 50),
    20: _Kind("IQ4_NL", 32, 18),
    21: _Kind("IQ3_S", 256, 110),
    22: _Kind("IQ2_S", 256, 82),
    23: _Kind("IQ4_XS", 256, 136),
    29: _Kind("IQ1_M", 256, 56),
    34: _Kind("TQ1_0", 256, 54),
    35: _Kind("TQ2_0", 256, 66),
    39: _Kind("MXFP4", 32, 17),
    40: _Kind("NVFP4", 64, 36),
    41: _Kind("Q1_0", 128, 18),
}

_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9


class _Row(NamedTuple):
    name: str
    shape: tuple[int, ...]
    kind: int
    begin: int
    nbytes: int


class GGUFCheckpoint(Checkpoint):
    """A Checkpoint whose tensors may be quantized: their values are float32, made when they are asked for.

    ``tensor_info`` gives float32 for them, with the bytes they take in the file, and ``stored_type`` their
    type.
    """

    __slots__ = ("_gguf",)

    def __init__(self, path: Path, part: _Part, metadata: dict[str, Any]) -> None:
        super().__init__(path, [part], metadata=metadata)
        self._gguf = part
        self._makes_tensors = True

    def _blank(self) -> GGUFCheckpoint:
        made = GGUFCheckpoint.__new__(GGUFCheckpoint)
        made._gguf = self._gguf
        return made

    def stored_type(self, name: str) -> str:
        """What the format calls a tensor's type: "F32", "Q4_K", ... Raises KeyError for an unknown name."""
        _, position = self._place(name)
        return self._gguf.stored_type(position)


def open_file(path: Path, file: BinaryIO) -> GGUFCheckpoint:
    """Raises ValueError that names the file, and the entry, for one that breaks the format."""
    mapped = MappedFile(path, file)
    header = _Header(path, mapped)
    return GGUFCheckpoint(path, _Part(mapped, header.rows), header.metadata)


class _Part:
    def __init__(self, file: MappedFile, rows: list[_Row]) -> None:
        self._file = file
        self._rows = rows
        self._live: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()

    @property
    def path(self) -> Path:
        return self._file.path

    @property
    def file(self) -> MappedFile:
        return self._file

    @property
    def names(self) -> list[str]:
        return [row.name for row in self._rows]

    def stored_type(self, position: int) -> str:
        kind = self._rows[position].kind
        block = _BLOCKS.get(kind)
        return block.name if block is not None else _plain_name(_PLAIN[kind])

    def info(self, position: int) -> TensorInfo:
        row = self._rows[position]
        return TensorInfo(_PLAIN.get(row.kind, torch.float32), row.shape, row.nbytes)

    def byte_range(self, position: int) -> ByteRange | None:
        row = self._rows[position]
        return ByteRange(self.path, row.begin, row.begin + row.nbytes) if row.nbytes else None

    def tensor(self, position: int) -> Tensor:
        row = self._rows[position]
        if row.kind in _PLAIN:
            return self._file.tensor(row.begin, _PLAIN[row.kind], row.shape)
        return self._dequantized(row)

    def _dequantized(self, row: _Row) -> Tensor:
        block = _BLOCKS[row.kind]
        try:
            import gguf
            import numpy
        except ImportError:
            raise Untold(
                f"{self.path}: the values of {row.name!r} ({block.name}) need the package gguf "
                "(pip install pyparam[gguf])"
            ) from None
        if row.nbytes == 0:
            return torch.empty(row.shape, dtype=torch.float32, device="cpu")
        width = row.shape[-1] // block.values * block.nbytes
        raw = numpy.frombuffer(self._file.read(row.begin, row.nbytes), dtype=numpy.uint8).reshape(-1, width)
        try:
            values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(row.kind))
        except (NotImplementedError, ValueError) as error:
            raise Untold(
                f"{self.path}: the values of {row.name!r} ({block.name}) cannot be told: {error}"
            ) from None
        made = torch.from_numpy(numpy.ascontiguousarray(values, dtype=numpy.float32)).reshape(row.shape)
        self._file.release(row.begin, row.begin + row.nbytes)
        return made

    def close(self) -> None:
        self._file.close()


def _plain_name(dtype: torch.dtype) -> str:
    letter = "BF" if dtype == torch.bfloat16 else "F" if dtype.is_floating_point else "I"
    return f"{letter}{8 * dtype.itemsize}"


class _Header:
    """What a file says before its tensors' bytes."""

    def __init__(self, path: Path, file: MappedFile) -> None:
        self.path = path
        self._data = file.read(0, file.size)
        self._position = len(MAGIC)
        self.metadata: dict[str, Any] = {}
        self.rows: list[_Row] = []
        version = self._number("<I")
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
            self._fail("it is big-endian" if swapped else f"version {version} is not known")
        count, pairs = self._number("<Q"), self._number("<Q")
        names = Names(path, file.size)
        for _ in range(pairs):
            key = self._text()
            names.spend(key)
            if key in self.metadata:
                self._fail(f"two entries of its metadata are named {key!r}")
            self.metadata[key] = self._value(self._number("<I"), key)
        alignment = self.metadata.get("general.alignment", _ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            self._fail(f"its alignment is {alignment!r}")
        found = []
        for _ in range(count):
            found.append(self._row())
            names.spend(found[-1].name)
        begin = -(-self._position // alignment) * alignment
        seen: set[str] = set()
        for row in found:
            if row.name in seen:
                self._fail(f"two entries are named {row.name!r}")
            seen.add(row.name)
            if row.begin % alignment:
                self._fail(f"entry {row.name!r} begins at {row.begin}, which is no multiple of {alignment}")
            if begin + row.begin + row.nbytes > file.size:
                self._fail(f"entry {row.name!r} reaches beyond the end: the file is truncated")
            self.rows.append(row._replace(begin=begin + row.begin))
        full = sorted((row for row in self.rows if row.nbytes), key=lambda row: row.begin)
        for row, after in itertools.pairwise(full):
            if row.begin + row.nbytes > after.begin:
                self._fail(f"the bytes of {row.name!r} and {after.name!r} overlap")
        self._data.release()

    def _row(self) -> _Row:
        name = self._text()
        dimensions = self._number("<I")
        if dimensions > _MOST_DIMENSIONS:
            self._fail(f"entry {name!r} has {dimensions} dimensions")
        # The fastest dimension comes first.
        shape = tuple(reversed([self._number("<Q") for _ in range(dimensions)]))
        kind, begin = self._number("<I"), self._number("<Q")
        count = math.prod(shape)
        if kind in _PLAIN:
            nbytes = count * _PLAIN[kind].itemsize
        elif kind in _BLOCKS:
            block = _BLOCKS[kind]
            if not shape or shape[-1] % block.values:
                self._fail(f"entry {name!r} of shape {list(shape)} is no whole blocks of {block.values}")
            nbytes = count // block.values * block.nbytes
        else:
            self._fail(f"entry {name!r} has the unknown type {kind}")
        if max(count, nbytes, *shape, 0) >= 1 << 60:
            self._fail(f"entry {name!r} has shape {list(shape)}")
        return _Row(name, shape, kind, begin, nbytes)

    def _number(self, form: str) -> Any:
        try:
            (value,) = struct.unpack_from(form, self._data, self._position)
        except struct.error:
            self._fail("it is truncated")
        self._position += struct.calcsize(form)
        return value

    def _text(self) -> str:
        length = self._number("<Q")
        if length > len(self._data) - self._position:
            self._fail("it is truncated inside a text")
        raw = bytes(self._data[self._position : self._position + length])
        self._position += length
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self._fail(f"a text is not UTF-8: {raw[:80]!r}")

    def _value(self, kind: int, key: str) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            self._fail(f"{key!r} has the unknown type {kind}")
        inner, count = self._number("<I"), self._number("<Q")
        if inner == _STRING and count > _LONGEST_ARRAY:
            for _ in range(count):
                length = self._number("<Q")
                if length > len(self._data) - self._position:
                    self._fail("it is truncated inside a text")
                self._position += length
            return f"<{count} texts>"
        if inner in _SCALARS and count > _LONGEST_ARRAY:
            nbytes = count * struct.calcsize(_SCALARS[inner])
            if nbytes > len(self._data) - self._position:
                self._fail("it is truncated inside an array")
            self._position += nbytes
            return f"<{count} numbers>"
        if inner == _ARRAY or count > _LONGEST_ARRAY:
            self._fail(f"{key!r} is an array of arrays")
        return [self._value(inner, key) for _ in range(count)]

    def _fail(self, what: str) -> NoReturn:
        raise ValueError(f"{self.path} is not a valid GGUF file: {what}") from None
