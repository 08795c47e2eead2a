"""The .safetensors format: a length, a JSON header, then the tensors' bytes end to end.

https://github.com/huggingface/safetensors#format. The header is read and checked whole before anything is
offered, as the file may come from anyone; the tensors' bytes are not read.
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

import torch

from pyparam._base.native import _C
from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.entries_part import EntriesPart
from pyparam._sources.mapped import MappedFile
from pyparam._sources.order import natural
from pyparam._sources.places import Places
from pyparam._sources.tied import TIES_KEY, ties_from_text

LENGTH_BYTES = 8
LONGEST_HEADER = 100_000_000  # the reference implementation's limit


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


_CODES = [(code, kind.bits) for code, kind in KINDS.items()]
_KINDS = list(KINDS.items())


def looks_like(start: bytes, size: int) -> bool:
    """Whether a file of ``size`` bytes that begins so can be one of this format."""
    if len(start) <= LENGTH_BYTES:
        return False
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    return 2 <= length <= size - LENGTH_BYTES and start[LENGTH_BYTES:].lstrip(b" \t\r\n")[:1] == b"{"


def open_file(path: Path, file: BinaryIO) -> Checkpoint:
    """Raises ValueError that names the file, and the entry, for a file that breaks the format in any way."""
    header, start = _read_header(path, file)
    nobodys = header.in_the_librarys_order([bits for _, bits in _CODES])
    names = header.names
    _check_torch_has(path, header, names)
    order = header.natural_order() if nobodys else None
    listed = names if order is None else [names[position] for position in order]
    places = Places(listed, array("Q", range(len(names)) if order is None else order))
    tied = _tied_places(path, header.metadata, places)
    if tied:
        together = {**places, **tied}
        listed = natural(together) if nobodys else list(together)
        places = Places(listed, array("Q", map(together.__getitem__, listed)))
    entries = header.entries(start, [(kind.dtype, kind.packed) for kind in KINDS.values()])
    part = EntriesPart(names, entries, MappedFile(path, file))
    return Checkpoint(path, [part], places=places, metadata=header.metadata)


def _tied_places(path: Path, metadata: dict[str, str], places: Places) -> dict[str, int]:
    """Names whose tensor was written once, under another name, as the metadata tells.

    ``pyparam.save_file`` writes its ties there, ``safetensors.torch.save_model`` an entry for each name.
    """
    tied = {
        name: places[kept]
        for name, kept in metadata.items()
        if _is_parameter_name(name, kept) and name not in places and kept in places
    }
    try:
        ties = ties_from_text(metadata.get(TIES_KEY, "[]"))
    except ValueError as error:
        _broken(path, f"its {TIES_KEY} is damaged: {error}")
    for group in (group for tie in ties for group in tie.classes("storage")):
        kept = next((name for name in group if name in places), None)
        if kept is not None:
            tied |= {name: places[kept] for name in group if name not in places}
    return tied


def _is_parameter_name(name: str, kept: str) -> bool:
    """Whether a key of the metadata is a tensor that ``save_model`` wrote under another name.

    It does not mark them, and any key may have a tensor's name for a value ("epoch": "2"). A parameter lies
    in a module, or has the attribute name of the one it shares memory with.
    """
    return "." in name.strip(".") or name.rpartition(".")[2] == kept.rpartition(".")[2]


def _as_torch(header: _C.SafetensorsHeader, position: int) -> tuple[torch.dtype, tuple[int, ...]]:
    """dtype and shape of an entry as torch has them.

    Raises ValueError for what the format can hold and this torch cannot.
    """
    code, kind = _KINDS[header.dtype(position)]
    shape = header.shape(position)
    if kind.dtype is None:
        raise ValueError(f"torch {torch.__version__} has no dtype for {code}")
    if kind.packed > 1:
        if not shape or shape[-1] % kind.packed:
            raise ValueError(
                f"{code} in torch packs {kind.packed} elements into one: the last extent of shape "
                f"{list(shape)} must be a multiple of {kind.packed}"
            )
        shape = (*shape[:-1], shape[-1] // kind.packed)
    return kind.dtype, shape


def _read_header(path: Path, file: BinaryIO) -> tuple[_C.SafetensorsHeader, int]:
    """Reads and checks the header alone; also gives where the data starts."""
    size = os.fstat(file.fileno()).st_size
    if size < LENGTH_BYTES:
        _broken(path, f"it is truncated: {size} bytes, and the length of the header takes {LENGTH_BYTES}")
    file.seek(0)
    length = int.from_bytes(_read(file, LENGTH_BYTES), "little")
    if length > size - LENGTH_BYTES:
        rest = size - LENGTH_BYTES
        _broken(path, f"its header claims {length} bytes, the file has {rest} after the length")
    if length > LONGEST_HEADER:
        _broken(path, f"its header claims {length} bytes; the format allows {LONGEST_HEADER}")
    text = _read(file, length)
    if len(text) != length:
        _broken(path, f"it is truncated: {len(text)} of {length} bytes of the header could be read")
    start = LENGTH_BYTES + length
    try:
        header = _C.SafetensorsHeader(text, size - start, _CODES)
    except ValueError as error:
        _broken(path, str(error))
    return header, start


def _check_torch_has(path: Path, header: _C.SafetensorsHeader, names: list[str]) -> None:
    doubtful = {i for i, (_, kind) in enumerate(_KINDS) if kind.dtype is None or kind.packed > 1}
    if doubtful.isdisjoint(header.dtypes):
        return
    for position, name in enumerate(names):
        try:
            _as_torch(header, position)
        except ValueError as error:
            _broken(path, f"entry {name!r}: {error}")


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
    raise ValueError(f"{path} is not a valid safetensors file: {what}") from None
