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
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any

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


# Bytes from which deflating well takes seconds, and saves a twentieth.
_LARGE = 1 << 25


class Packer:
    """Collects columns, then gives the text."""

    def __init__(self) -> None:
        self._columns: list[dict[str, Any]] = []
        self._parts: list[bytes] = []

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
        self._parts.append(_planes(column.to(dtype)))

    def text(self, header: dict[str, Any]) -> Iterator[str]:
        """Base64 of everything, ``header`` with the list of columns first, piece by piece. The columns are
        let go meanwhile."""
        head = json.dumps(
            {**header, "columns": self._columns}, separators=(",", ":"), allow_nan=False
        ).encode()
        parts = deque([struct.pack("<I", len(head)), head, *self._parts])
        self._parts.clear()
        squeeze = zlib.compressobj(6 if sum(map(len, parts)) < _LARGE else 1)
        rest = b""
        while parts:
            rest += squeeze.compress(parts.popleft())
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
    held = size[(size > 0) & (size < math.inf)]
    if not len(held):
        return torch.float32
    limits, (least, most) = torch.finfo(torch.float32), (float(end) for end in held.aminmax())
    return torch.float32 if least >= limits.tiny and most <= limits.max else torch.float64


def _planes(column: Tensor) -> bytes:
    size = column.dtype.itemsize
    if not len(column):
        return b""
    dense = column.clone(memory_format=torch.contiguous_format)
    planes = dense.view(torch.uint8).reshape(-1, size).t().contiguous()
    return ctypes.string_at(planes.data_ptr(), planes.numel())
