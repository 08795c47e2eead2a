"""The .safetensors format: a length, a JSON header, then the tensors' bytes end to end.

https://github.com/huggingface/safetensors#format. The header is read and checked whole before anything is
offered, as the file may come from anyone; the tensors' bytes are not read.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import torch

from pyparam._sources.checkpoint import Checkpoint, Entry, TensorInfo
from pyparam._sources.mapped import MappedFile

LENGTH_BYTES = 8
LONGEST_HEADER = 100_000_000  # the reference implementation's limit
_LARGEST = 2**63 - 1


class _Kind(NamedTuple):
    bits: int
    dtype: torch.dtype | None  # None where this torch has no such dtype
    packed: int = 1  # elements in one torch element


def _torch(name: str) -> torch.dtype | None:
    return getattr(torch, name, None)


KINDS = {
    "BOOL": _Kind(8, torch.bool),
    "U8": _Kind(8, torch.uint8),
    "I8": _Kind(8, torch.int8),
    "U16": _Kind(16, torch.uint16),
    "I16": _Kind(16, torch.int16),
    "U32": _Kind(32, torch.uint32),
    "I32": _Kind(32, torch.int32),
    "U64": _Kind(64, torch.uint64),
    "I64": _Kind(64, torch.int64),
    "F4": _Kind(4, _torch("float4_e2m1fn_x2"), packed=2),
    "F6_E2M3": _Kind(6, _torch("float6_e2m3fn")),
    "F6_E3M2": _Kind(6, _torch("float6_e3m2fn")),
    "F8_E4M3": _Kind(8, torch.float8_e4m3fn),
    "F8_E4M3FNUZ": _Kind(8, torch.float8_e4m3fnuz),
    "F8_E5M2": _Kind(8, torch.float8_e5m2),
    "F8_E5M2FNUZ": _Kind(8, torch.float8_e5m2fnuz),
    "F8_E8M0": _Kind(8, _torch("float8_e8m0fnu")),
    "F16": _Kind(16, torch.float16),
    "BF16": _Kind(16, torch.bfloat16),
    "F32": _Kind(32, torch.float32),
    "F64": _Kind(64, torch.float64),
    "C64": _Kind(64, torch.complex64),
}


class Header(NamedTuple):
    entries: dict[str, tuple[TensorInfo, int, int]]  # info, begin and end in the file
    metadata: dict[str, str]


def looks_like(start: bytes, size: int) -> bool:
    """Whether a file of ``size`` bytes that begins so can be one of this format."""
    if len(start) <= LENGTH_BYTES:
        return False
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    return 2 <= length <= size - LENGTH_BYTES and start[LENGTH_BYTES:].lstrip(b" \t\r\n")[:1] == b"{"


def open_file(path: Path, file: BinaryIO) -> Checkpoint:
    """Raises ValueError that names the file, and the entry, for a file that breaks the format in any way."""
    header = read_header(path, file)
    mapped = MappedFile(path, file)
    entries = {name: Entry(info, mapped, begin, end) for name, (info, begin, end) in header.entries.items()}
    return Checkpoint(path, entries, [path], header.metadata)


def read_header(path: Path, file: BinaryIO) -> Header:
    """Reads and checks the header alone."""
    size = os.fstat(file.fileno()).st_size
    if size < LENGTH_BYTES:
        _broken(
            path, f"it is truncated: {size} bytes, and the length of the header alone takes {LENGTH_BYTES}"
        )
    file.seek(0)
    length = int.from_bytes(_read(file, LENGTH_BYTES), "little")
    if length > size - LENGTH_BYTES:
        _broken(
            path, f"its header claims {length} bytes, the file has {size - LENGTH_BYTES} after the length"
        )
    if length > LONGEST_HEADER:
        _broken(path, f"its header claims {length} bytes; the format allows {LONGEST_HEADER}")
    raw = _read(file, length)
    if len(raw) != length:
        _broken(path, f"it is truncated: {len(raw)} of {length} bytes of the header could be read")
    return _checked(path, _parsed(path, raw), LENGTH_BYTES + length, size)


def _read(file: BinaryIO, count: int) -> bytes:
    """Up to ``count`` bytes; an unbuffered file gives them in as many parts as it likes."""
    parts = []
    while count > 0:
        part = file.read(count)
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _broken(path: Path, what: str) -> NoReturn:
    raise ValueError(f"{path} is not a valid safetensors file: {what}")


class _Duplicate(ValueError):
    pass


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Duplicate(key)
            seen.add(key)
    return made


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _parsed(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(raw.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except _Duplicate as error:
        _broken(path, f"two entries of its header are named {error.args[0]!r}")
    except UnicodeDecodeError as error:
        _broken(path, f"its header is not UTF-8 ({error.reason} at byte {error.start})")
    except RecursionError:
        _broken(path, "its header is nested too deeply")
    except ValueError as error:
        _broken(path, f"its header is not JSON ({error})")
    if not isinstance(parsed, dict):
        _broken(path, f"its header is a JSON {_json_type(parsed)}, not an object")
    return parsed


def _json_type(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _checked(path: Path, parsed: dict[str, Any], start: int, size: int) -> Header:
    metadata = parsed.pop("__metadata__", None)
    if metadata is None:
        metadata = {}
    elif not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _broken(path, "its __metadata__ is not an object of strings")
    room = size - start
    entries: dict[str, tuple[TensorInfo, int, int]] = {}
    for name, described in parsed.items():
        try:
            info, begin, end = _entry(described, room)
            name.encode()
        except UnicodeEncodeError:
            _broken(path, f"the name {name!r} is not valid Unicode text")
        except ValueError as error:
            _broken(path, f"entry {name!r}: {error}")
        entries[name] = (info, start + begin, start + end)
    _check_cover(path, entries, start, size)
    return Header(entries, metadata)


def _entry(described: object, room: int) -> tuple[TensorInfo, int, int]:
    if not isinstance(described, dict):
        raise ValueError(
            f"expected an object with dtype, shape and data_offsets, got a JSON {_json_type(described)}"
        )
    missing = [field for field in ("dtype", "shape", "data_offsets") if field not in described]
    if missing:
        raise ValueError(f"it has no {' and no '.join(missing)}")
    code, shape, offsets = described["dtype"], described["shape"], described["data_offsets"]
    kind = KINDS.get(code) if isinstance(code, str) else None
    if kind is None:
        raise ValueError(f"unknown dtype {code!r}; known are {', '.join(KINDS)}")
    if not isinstance(shape, list) or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise ValueError(f"shape must be an array of non-negative integers, it is {_shortened(shape)}")
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(o) is int and o >= 0 for o in offsets)
    ):
        raise ValueError(f"data_offsets must be two non-negative integers, they are {_shortened(offsets)}")
    begin, end = offsets
    if begin > end:
        raise ValueError(f"data_offsets {offsets} end before they begin")
    if end > room:
        raise ValueError(f"data_offsets {offsets} reach beyond the file, which has {room} bytes of data")
    count = _count(shape)
    bits = count * kind.bits
    if bits != (end - begin) * 8:
        needed = f"{bits // 8}" if bits % 8 == 0 else f"{bits / 8:.3f}"
        raise ValueError(
            f"shape {_shortened(shape)} of {code} takes {needed} bytes, "
            f"data_offsets {offsets} span {end - begin}"
        )
    if kind.dtype is None:
        raise ValueError(f"torch {torch.__version__} has no dtype for {code}")
    if kind.packed > 1:
        if not shape or shape[-1] % kind.packed:
            raise ValueError(
                f"{code} in torch packs {kind.packed} elements into one: the last extent of shape "
                f"{_shortened(shape)} must be a multiple of {kind.packed}"
            )
        shape = [*shape[:-1], shape[-1] // kind.packed]
    return TensorInfo(kind.dtype, tuple(shape), end - begin), begin, end


def _count(shape: list[int]) -> int:
    """The number of elements. Raises ValueError where it, or a stride, is more than 64 bits hold."""
    count = 1
    span = 1  # as count, but an extent of 0 does not hide the others: strides are made of them
    for extent in shape:
        count *= extent
        span *= max(extent, 1)
        if span > _LARGEST:
            raise ValueError(f"shape {_shortened(shape)} overflows a 64-bit count of elements")
    return count


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_cover(path: Path, entries: dict[str, tuple[TensorInfo, int, int]], start: int, size: int) -> None:
    """The entries must cover the data end to end: no byte twice, none left out."""
    reached, before = start, "the header"
    for begin, end, name in sorted((begin, end, name) for name, (_, begin, end) in entries.items()):
        if begin < reached:
            _broken(path, f"entry {name!r}: its bytes from {begin - start} overlap those of {before}")
        if begin > reached:
            _broken(
                path, f"entry {name!r}: {begin - reached} bytes between it and {before} belong to no entry"
            )
        reached, before = end, repr(name)
    if reached != size:
        _broken(path, f"its last {size - reached} bytes, after {before}, belong to no entry")
