"""Packs columns of numbers and a JSON header into text that stands in a page.

Layout, before zlib's deflate and base64: the header's length as a little-endian uint32, the header as UTF-8
JSON, and behind it, in the order of ``header["columns"]``, the columns. A column is stored as planes: first
the lowest byte of every value, then the next, ... since alike bytes deflate better. ``js/data.js`` reads it.
"""

from __future__ import annotations

import base64
import ctypes
import json
import math
import struct
import tempfile
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import IO, Any

import torch
from torch import Tensor

# Name in the header, by dtype; the JavaScript side has a typed array for each.
_CODES = {
    torch.uint8: "u1",
    torch.uint16: "u2",
    torch.uint32: "u4",
    torch.float32: "f4",
    torch.float64: "f8",
}
_UNSIGNED = ((torch.uint8, 1 << 8), (torch.uint16, 1 << 16), (torch.uint32, 1 << 32))
_NARROW = {dtype for dtype, _ in _UNSIGNED}


# Bytes that are held in memory. Of very many tensors the columns are as large as all else that is held of
# them, and what stands first in the page, the header, is known last.
_HELD = 1 << 23

# Bytes from which deflating well takes seconds, and saves a twentieth.
_LARGE = 1 << 25


class Packer:
    """Collects columns, many of them in a temporary file, then gives the text."""

    def __init__(self) -> None:
        self._columns: list[dict[str, Any]] = []
        self._sizes: list[int] = []
        self._planes: IO[bytes] = tempfile.SpooledTemporaryFile(_HELD)  # noqa: SIM115 (closed below)

    def __del__(self) -> None:
        self._planes.close()

    def add(self, name: str, column: Tensor) -> None:
        """A column under a name, in the smallest type that holds it; an unsigned one as it is.

        Integers must not be negative; beyond 2**32 they become float64, which is exact to 2**53. Floats
        become float32 where that neither overflows nor goes subnormal for any of them.
        """
        column = column.contiguous()
        if column.dtype in _NARROW:
            dtype = column.dtype
        else:
            dtype = _float_type(column) if column.is_floating_point() else _integer_type(column)
        self._columns.append({"name": name, "type": _CODES[dtype], "length": len(column)})
        narrow = column.to(dtype)
        self._sizes.append(narrow.nbytes)
        for plane in _planes(narrow):
            self._planes.write(plane)

    def text(self, header: dict[str, Any]) -> Iterator[str]:
        """Base64 of everything, ``header`` with the list of columns first, piece by piece; once."""
        head = json.dumps(
            {**header, "columns": self._columns}, separators=(",", ":"), allow_nan=False
        ).encode()
        first = struct.pack("<I", len(head)), head
        squeeze = zlib.compressobj(6 if sum(map(len, first)) + sum(self._sizes) < _LARGE else 1)
        rest = b""
        with self._planes as planes:
            planes.seek(0)
            for part in chain(first, map(planes.read, self._sizes)):
                rest += squeeze.compress(part)
                whole = len(rest) // 3 * 3  # bytes that base64 needs no filling behind
                yield base64.b64encode(rest[:whole]).decode("ascii")
                rest = rest[whole:]
        yield base64.b64encode(rest + squeeze.flush()).decode("ascii")


def unpack(text: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the columns that ``Packer.text`` was given, from its pieces together; the columns in
    their smallest types."""
    raw = zlib.decompress(base64.b64decode(text))
    (length,) = struct.unpack_from("<I", raw)
    header = json.loads(raw[4 : 4 + length])
    types = {code: dtype for dtype, code in _CODES.items()}
    columns: dict[str, Tensor] = {}
    at = 4 + length
    for column in header["columns"]:
        dtype, count = types[column["type"]], column["length"]
        size = count * dtype.itemsize
        flat = torch.frombuffer(bytearray(raw[at : at + size] or b"\0"), dtype=torch.uint8)[:size]
        at += size
        columns[column["name"]] = _joined(flat, dtype)
    return header, columns


def _joined(planes: Tensor, dtype: torch.dtype) -> Tensor:
    if not len(planes):
        return torch.zeros(0, dtype=dtype, device="cpu")
    values = planes.reshape(dtype.itemsize, -1).t().clone(memory_format=torch.contiguous_format)
    return values.view(dtype).flatten()


def _integer_type(column: Tensor) -> torch.dtype:
    most = int(column.max()) if len(column) else 0
    return next((dtype for dtype, limit in _UNSIGNED if most < limit), torch.float64)


def _float_type(column: Tensor) -> torch.dtype:
    size = column.double().abs()
    good = (size > 0) & (size < math.inf)
    if not bool(good.any()):
        return torch.float32
    limits = torch.finfo(torch.float32)
    least, most = float(torch.where(good, size, math.inf).min()), float(torch.where(good, size, 0).max())
    return torch.float32 if least >= limits.tiny and most <= limits.max else torch.float64


_TOGETHER = 1 << 14  # values, which a cache holds and one thread does
# Integers of the same bytes, whose lowest ones a conversion to uint8 keeps.
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _planes(column: Tensor) -> Iterator[bytes]:
    """The lowest byte of every value, then the next, ..."""
    size = column.dtype.itemsize
    if not len(column):
        return
    # One value of a strided column counts as contiguous, and cannot be viewed as another type.
    dense = column if column.stride(0) == 1 else column.clone(memory_format=torch.contiguous_format)
    values = dense.view(_INTEGERS[size])
    for place in range(size):
        for begin in range(0, len(values), _TOGETHER):
            some = values[begin : begin + _TOGETHER]
            plane = (some >> 8 * place).to(torch.uint8) if size > 1 else some
            yield ctypes.string_at(plane.data_ptr(), len(plane))
