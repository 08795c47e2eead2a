"""Quantized parameters as what they stand for: packed weights with their scales, as one logical parameter.

The layouts are those that the libraries write (``schemes``): bitsandbytes, GPTQ of both versions, AWQ,
compressed-tensors, block-scaled fp8, MXFP4 and NVFP4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.plain_json import parsed_json
from pyparam._sources.schemes import LONGEST_STATE, LOOKED_AT, Logical, Scheme, schemes
from pyparam._sources.stand_in import Untold, is_stand_in, stand_in, value_of
from pyparam._sources.table import ParamTable

__all__ = ["Logical", "Quantized", "dequantized", "quantized"]


_LONGEST_CONFIG = 4 << 20
# Every scheme writes a name that ends so.
_MARKS = ("absmax", "SCB", "qweight", "_scale", "_scale_inv", "_packed", "_blocks")


class Quantized(NamedTuple):
    """A table's logical parameters; its other tensors; and what looks quantized in no known way."""

    logical: list[Logical]
    rest: ParamTable
    raw: list[str]


def quantized(table: ParamTable, source: Any = None) -> Quantized:
    """The quantized parameters of a table, by names, dtypes and shapes; values are not read, but for the few
    that say a shape.

    ``source`` is what the table is of: a checkpoint's configuration tells GPTQ's second format.
    """
    if not any(name.endswith(_MARKS) for name in table.names):
        return Quantized([], table, [])
    known = schemes(gptq_v2=isinstance(source, Checkpoint) and _is_gptq_v2(source))
    tensors = {name: told for name, tensor in table if (told := _told(name, tensor)) is not None}
    found: list[Logical] = []
    for name, tensor in tensors.items():
        for scheme in known:
            made = scheme(name, tensor, tensors)
            if made is not None:
                found.append(_from_values(scheme, name, made, tensors))
                break
    used = {name for one in found for name in one.stored}
    rest = table._take([row for row, name in enumerate(table.names) if name not in used])
    raw = [
        name
        for name, tensor in rest
        if name.endswith(("qweight", "weight_packed", "_blocks")) and not tensor.is_floating_point()
    ]
    return Quantized(found, rest, raw)


def _told(name: str, tensor: Tensor) -> Tensor | None:
    """A tensor as schemes look at it: a stand-in where no more than shape and dtype is looked at.

    None for one that is no part of any, or whose value is looked at and cannot be told.
    """
    if not is_stand_in(tensor):
        plain = not (tensor.is_meta or tensor.is_quantized or tensor.is_nested)
        return tensor if plain and tensor.layout == torch.strided else None
    if not LOOKED_AT.search(name) or tensor.numel() > LONGEST_STATE:
        return tensor
    try:
        return value_of(tensor)
    except Untold:
        return None


def _from_values(scheme: Scheme, name: str, one: Logical, tensors: Mapping[str, Tensor]) -> Logical:
    """The same parameter, whose stand-ins are asked for their values when it is asked for its own."""
    stored = {key: tensors[key] for key in one.stored}
    if not any(map(is_stand_in, stored.values())):
        return one

    def values() -> Tensor:
        read = {key: value_of(tensor) for key, tensor in stored.items()}
        made = scheme(name, read[name], read)
        if made is None:
            raise Untold(f"{one.name} cannot be told from its tensors ({one.scheme})")
        return made.values()

    return one._replace(values=values)


def _is_gptq_v2(source: Checkpoint) -> bool:
    """Whether the ``config.json`` or ``quantize_config.json`` beside a checkpoint's files says so."""
    if not source.files:
        return False
    for name in ("config.json", "quantize_config.json"):
        file = source.files[0].parent / name
        try:
            plain = file.is_file() and file.stat().st_size <= _LONGEST_CONFIG
            said = parsed_json(file.read_bytes()) if plain else None
        except (OSError, ValueError):
            continue
        said = said.get("quantization_config", said) if isinstance(said, dict) else None
        if isinstance(said, dict) and said.get("checkpoint_format") == "gptq_v2":
            return True
    return False


def dequantized(table: ParamTable, source: Any = None) -> ParamTable:
    """The table with a stand-in for every quantized parameter, whose value is what it stands for."""
    found = quantized(table, source)
    if not found.logical:
        return table
    names = [*found.rest.names, *(one.name for one in found.logical)]
    made = [stand_in(one.shape, torch.float32, one.values) for one in found.logical]
    return ParamTable(names, [*found.rest.tensors, *made])
