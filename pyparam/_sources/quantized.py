"""Quantized parameters as what they stand for: packed weights with their scales, as one logical parameter.

The layouts are those that the libraries write: bitsandbytes (8 bit with ``SCB``, 4 bit with a quant state),
GPTQ (``qweight``, ``qzeros``, ``scales``, ``g_idx``; version 1, whose zeros are stored less one), AWQ,
compressed-tensors (``weight_packed``, ``weight_scale``, ``weight_shape``), block-scaled fp8
(``weight_scale_inv``), MXFP4 (OCP Microscaling 1.0: ``*_blocks``, ``*_scales``) and NVFP4.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyparam._sources.table import ParamTable

# E2M1 by its four bits; the OCP and NVIDIA formats share it.
_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_LONGEST_STATE = 1 << 16
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


# Every scheme writes a name that ends so.
_MARKS = ("absmax", "SCB", "qweight", "_scale", "_scale_inv", "_packed", "_blocks")


class Logical(NamedTuple):
    """One parameter, and the tensors that it is stored as."""

    name: str
    scheme: str
    shape: tuple[int, ...]
    stored: tuple[str, ...]
    nbytes: int
    values: Callable[[], Tensor]
    """Its values, float32, in new memory."""

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def bits(self) -> float:
        """Bits a value, scales and the like among them."""
        return 8 * self.nbytes / self.numel if self.numel else 0.0


class Quantized(NamedTuple):
    """A table's logical parameters; its other tensors; and what looks quantized in no known way."""

    logical: list[Logical]
    rest: ParamTable
    raw: list[str]


def quantized(table: ParamTable) -> Quantized:
    """The quantized parameters of a table, by names, dtypes and shapes; values are not read."""
    if not any(name.endswith(_MARKS) for name in table.names):
        return Quantized([], table, [])
    tensors = {
        name: tensor
        for name, tensor in table
        if tensor.layout == torch.strided and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested)
    }
    found: list[Logical] = []
    for name, tensor in tensors.items():
        for scheme in _SCHEMES:
            made = scheme(name, tensor, tensors)
            if made is not None:
                found.append(made)
                break
    used = {name for one in found for name in one.stored}
    rest = table._take([row for row, name in enumerate(table.names) if name not in used])
    raw = [
        name
        for name, tensor in rest
        if name.endswith(("qweight", "weight_packed", "_blocks")) and not tensor.is_floating_point()
    ]
    return Quantized(found, rest, raw)


def dequantized(table: ParamTable) -> ParamTable:
    """The table with every quantized parameter as its values."""
    found = quantized(table)
    if not found.logical:
        return table
    names = [*found.rest.names, *(one.name for one in found.logical)]
    return ParamTable.for_verb(names, [*found.rest.tensors, *(one.values() for one in found.logical)])


def _logical(
    name: str,
    scheme: str,
    shape: Sequence[int],
    stored: Mapping[str, Tensor | None],
    values: Callable[[], Tensor],
) -> Logical:
    there = {key: tensor for key, tensor in stored.items() if tensor is not None}
    nbytes = sum(tensor.numel() * tensor.element_size() for tensor in there.values())
    return Logical(name, scheme, tuple(map(int, shape)), tuple(there), nbytes, values)


Tensors = Mapping[str, Tensor]


def _bitsandbytes_4bit(name: str, weight: Tensor, all: Tensors) -> Logical | None:
    if weight.dtype != torch.uint8 or f"{name}.absmax" not in all or f"{name}.quant_map" not in all:
        return None
    keys = (f"{name}.quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4"))
    state = next((key for key in keys if key in all), None)
    if state is None or all[state].dtype != torch.uint8 or all[state].numel() > _LONGEST_STATE:
        return None
    try:
        said = json.loads(bytes(all[state].tolist()))
        shape, block = [int(n) for n in said["shape"]], int(said["blocksize"])
        inner, offset = int(said.get("nested_blocksize") or 0), float(said.get("nested_offset") or 0.0)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    words = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
    parts = {f"{name}.{word}": all.get(f"{name}.{word}") for word in words}
    absmax, codes, nested, nested_codes = parts.values()
    assert absmax is not None
    assert codes is not None
    count = math.prod(shape)
    fits = (
        block > 0
        and min(shape, default=1) > 0
        and len(codes.reshape(-1)) == 16
        and weight.numel() == -(-count // 2)
        and absmax.numel() == -(-count // block)
    )
    if not fits or ((nested is None) != (nested_codes is None)) or (nested is not None and inner <= 0):
        return None

    def values() -> Tensor:
        scales = absmax.reshape(-1)
        if nested is not None and nested_codes is not None:
            per = nested.reshape(-1).float().repeat_interleave(inner)[: len(scales)]
            scales = nested_codes.float()[scales.long()] * per + offset
        table = codes.reshape(-1).float()
        pairs = weight.reshape(-1)
        made = table[torch.stack((pairs >> 4, pairs & 15), 1).reshape(-1)[:count].long()]
        return (made * scales.float().repeat_interleave(block)[:count]).reshape(shape)

    kind = state.rpartition("__")[2]
    stored = {name: weight, **parts, state: all[state]}
    return _logical(name, f"bitsandbytes {kind}", shape, stored, values)


def _bitsandbytes_8bit(name: str, weight: Tensor, all: Tensors) -> Logical | None:
    base = name.removesuffix("weight")
    scale = all.get(f"{base}SCB")
    if weight.dtype != torch.int8 or scale is None or weight.dim() != 2 or scale.numel() != len(weight):
        return None
    stored = {name: weight, f"{base}SCB": scale, f"{base}weight_format": all.get(f"{base}weight_format")}
    return _logical(
        name,
        "bitsandbytes int8",
        weight.shape,
        stored,
        lambda: weight.float() * (scale.float().reshape(-1, 1) / 127),
    )


def _unpacked(packed: Tensor, bits: int) -> Tensor:
    """int32 words as their fields, the lowest bits first, in a new last dimension."""
    shifts = torch.arange(0, 32, bits, device=packed.device)
    return (packed.unsqueeze(-1).long() >> shifts) & ((1 << bits) - 1)


def _gptq_or_awq(name: str, packed: Tensor, all: Tensors) -> Logical | None:
    if not name.endswith("qweight") or packed.dtype != torch.int32 or packed.dim() != 2:
        return None
    base = name.removesuffix("qweight")
    zeros, scales, index = (all.get(f"{base}{key}") for key in ("qzeros", "scales", "g_idx"))
    if zeros is None or scales is None or scales.dim() != 2 or zeros.dim() != 2 or zeros.dtype != torch.int32:
        return None
    groups, outputs = scales.shape
    if len(zeros) != groups or not groups or not zeros.shape[1] or not packed.numel():
        return None
    stored = {name: packed, f"{base}qzeros": zeros, f"{base}scales": scales, f"{base}g_idx": index}
    bits = 32 * zeros.shape[1] // outputs
    if bits not in (2, 4, 8) or zeros.shape[1] * 32 != bits * outputs:
        return None
    if packed.shape[1] == outputs:
        inputs = len(packed) * 32 // bits
        if index.shape != (inputs,) if index is not None else inputs % groups:
            return None

        def gptq() -> Tensor:
            rows = (
                torch.arange(inputs, device=packed.device) // (inputs // groups)
                if index is None
                else index.long()
            )
            if int(rows.min()) < 0 or int(rows.max()) >= groups:
                raise ValueError(f"{base}g_idx has a group outside its {groups} groups")
            offset = _unpacked(zeros, bits).reshape(groups, outputs) + 1
            weights = _unpacked(packed.t(), bits).reshape(outputs, inputs).t()
            return ((weights - offset[rows]) * scales.float()[rows]).t().contiguous()

        return _logical(f"{base}weight", f"GPTQ {bits} bit", (outputs, inputs), stored, gptq)
    if bits == 4 and packed.shape[1] * 8 == outputs and index is None and len(packed) % groups == 0:
        inputs = len(packed)

        def awq() -> Tensor:
            order = torch.tensor(_AWQ_ORDER, dtype=torch.int64, device=packed.device)
            weights = _unpacked(packed, 4)[..., order].reshape(inputs, outputs)
            offset = _unpacked(zeros, 4)[..., order].reshape(groups, outputs)
            rows = torch.arange(inputs, device=packed.device) // (inputs // groups)
            return ((weights - offset[rows]) * scales.float()[rows]).t().contiguous()

        return _logical(f"{base}weight", "AWQ 4 bit", (outputs, inputs), stored, awq)
    return None


def _fp4(packed: Tensor) -> Tensor:
    """Bytes as two E2M1 values each, the low four bits first, along the last dimension."""
    table = torch.tensor([*_FP4, *(-value for value in _FP4)], dtype=torch.float32, device=packed.device)
    return table[torch.stack((packed & 15, packed >> 4), -1).flatten(-2).long()]


def _nvfp4(name: str, packed: Tensor, all: Tensors) -> Logical | None:
    if packed.dtype != torch.uint8 or packed.dim() != 2:
        return None
    base = name.removesuffix("_packed")
    scale = all.get(f"{base}_scale")
    second, divides = all.get(f"{base}_scale_2"), False
    key = f"{base}_scale_2"
    if second is None:
        second, divides, key = all.get(f"{base}_global_scale"), True, f"{base}_global_scale"
    shape = (len(packed), 2 * packed.shape[1])
    if scale is None or second is None or scale.dtype != torch.float8_e4m3fn or second.numel() != 1:
        return None
    if shape[1] % 16 or scale.shape != (shape[0], shape[1] // 16):
        return None

    def values() -> Tensor:
        whole = second.float().reshape(())
        fine = scale.float() / whole if divides else scale.float() * whole
        return _fp4(packed) * fine.repeat_interleave(16, 1)

    stored = {name: packed, f"{base}_scale": scale, key: second}
    return _logical(base, "NVFP4", shape, stored, values)


def _mxfp4(name: str, blocks: Tensor, all: Tensors) -> Logical | None:
    base = name.removesuffix("_blocks")
    scales = all.get(f"{base}_scales")
    if base == name or scales is None or blocks.dtype != torch.uint8 or scales.dtype != torch.uint8:
        return None
    if blocks.dim() < 2 or blocks.shape[-1] != 16 or scales.shape != blocks.shape[:-1]:
        return None
    shape = (*blocks.shape[:-2], blocks.shape[-2] * 32)

    def values() -> Tensor:
        exponents = torch.ldexp(
            torch.ones(scales.shape, dtype=torch.float32, device=scales.device), scales.int() - 127
        )
        exponents = exponents.masked_fill(scales == 255, math.nan)
        return (_fp4(blocks) * exponents.unsqueeze(-1)).reshape(shape)

    return _logical(base, "MXFP4", shape, {name: blocks, f"{base}_scales": scales}, values)


def _compressed(name: str, packed: Tensor, all: Tensors) -> Logical | None:
    """compressed-tensors ``pack-quantized``: fields with the lowest bits first, stored with an offset."""
    base = name.removesuffix("_packed")
    scale, said = all.get(f"{base}_scale"), all.get(f"{base}_shape")
    if base == name or packed.dtype != torch.int32 or scale is None or said is None or said.numel() != 2:
        return None
    if said.is_floating_point() or any(f"{base}_{key}" in all for key in ("zero_point", "g_idx")):
        return None
    shape = [int(n) for n in said.tolist()]
    if len(shape) != 2 or packed.dim() != 2 or min(shape) < 1 or len(packed) != shape[0]:
        return None
    bits = next((b for b in (4, 8) if packed.shape[1] == -(-shape[1] * b // 32)), None)
    if bits is None or scale.dim() != 2 or len(scale) not in (1, shape[0]) or shape[1] % scale.shape[1]:
        return None

    def values() -> Tensor:
        fields = _unpacked(packed, bits).reshape(shape[0], -1)[:, : shape[1]] - (1 << (bits - 1))
        return fields * scale.float().repeat_interleave(shape[1] // scale.shape[1], 1)

    stored = {name: packed, f"{base}_scale": scale, f"{base}_shape": said}
    return _logical(base, f"compressed-tensors {bits} bit", shape, stored, values)


def _scaled(name: str, weight: Tensor, all: Tensors) -> Logical | None:
    """fp8 or int8 with a scale a tensor, a row, a group or a block of both dimensions."""
    if weight.dtype not in (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8) or weight.dim() != 2:
        return None
    for key in (f"{name}_scale_inv", f"{name}_scale"):
        scale = all.get(key)
        if scale is None or not scale.is_floating_point() or scale.dtype.itemsize < 2:
            continue
        if f"{name}_zero_point" in all:
            return None
        grid = scale.reshape(-1, 1) if scale.dim() == 1 else scale.reshape(1, 1) if not scale.dim() else scale
        steps = _steps(weight.shape, grid.shape, blocks=key.endswith("_inv"))
        if grid.dim() != 2 or steps is None:
            return None
        rows, columns = steps

        def values(grid: Tensor = grid, rows: int = rows, columns: int = columns) -> Tensor:
            full = grid.float().repeat_interleave(rows, 0)[: len(weight)]
            return weight.float() * full.repeat_interleave(columns, 1)[:, : weight.shape[1]]

        kind = "fp8" if weight.dtype.is_floating_point else "int8"
        return _logical(
            name, f"{kind} with {key[len(name) + 1 :]}", weight.shape, {name: weight, key: scale}, values
        )
    return None


def _steps(shape: Sequence[int], grid: Sequence[int], *, blocks: bool) -> tuple[int, int] | None:
    """How many rows and columns a scale is for. Blocks are of 128 x 128, the last ones cut."""
    steps = []
    for size, parts in zip(shape, grid, strict=True) if len(grid) == 2 else ():
        if parts == 1:
            steps.append(max(size, 1))
        elif parts and size % parts == 0 and not (blocks and -(-size // 128) == parts):
            steps.append(size // parts)
        elif blocks and -(-size // 128) == parts:
            steps.append(128)
        else:
            return None
    return (steps[0], steps[1]) if len(steps) == 2 else None


_SCHEMES = (
    _bitsandbytes_4bit,
    _bitsandbytes_8bit,
    _gptq_or_awq,
    _nvfp4,
    _mxfp4,
    _compressed,
    _scaled,
)
