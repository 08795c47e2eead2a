"""The layouts that quantized weights are stored in, each as it is told from names, dtypes and shapes.

A scheme is a function of a tensor's name, the tensor, and all tensors by name; it gives the parameter that
the tensor is the packed weight of, or None. The values are those that the libraries' own code gives:
bitsandbytes (``dequantize_4bit``, ``SCB``), AutoGPTQ (``QuantLinear.forward``), AutoAWQ
(``dequantize_gemm``), compressed-tensors (``decompress`` of each format), transformers for MXFP4 and
block-scaled fp8.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from pyparam._sources.stand_in import Untold

# E2M1 by its four bits; the OCP and NVIDIA formats share it.
_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
LONGEST_STATE = 1 << 16
LOOKED_AT = re.compile(r"_shape$|\.quant_state\.bitsandbytes__\w+$")
"""Names of the tensors whose values schemes look at, and not at names, dtypes and shapes alone."""
_EXPONENTS = (torch.uint8, torch.float8_e8m0fnu)
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


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


def _logical(
    name: str,
    scheme: str,
    shape: Sequence[int],
    stored: Mapping[str, Tensor | None],
    values: Callable[[], Tensor],
) -> Logical:
    there = {key: tensor for key, tensor in stored.items() if tensor is not None}
    nbytes = sum(tensor.numel() * tensor.element_size() for tensor in there.values())
    sizes = tuple(map(int, shape))

    def told() -> Tensor:
        """What is damaged (an index beyond its table, scales too few) is found when it is looked at."""
        try:
            made = values()
        except (IndexError, RuntimeError) as error:
            why = str(error).partition("\n")[0]
            raise Untold(f"{name} cannot be told from its tensors ({scheme}): {why}") from None
        if tuple(made.shape) != sizes:
            raise Untold(f"{name} cannot be told from its tensors ({scheme}): they do not fit together")
        return made

    return Logical(name, scheme, sizes, tuple(there), nbytes, told)


Tensors: TypeAlias = Mapping[str, Tensor]
Scheme: TypeAlias = "Callable[[str, Tensor, Tensors], Logical | None]"


def _bitsandbytes_4bit(name: str, weight: Tensor, all: Tensors) -> Logical | None:
    if weight.dtype != torch.uint8 or f"{name}.absmax" not in all or f"{name}.quant_map" not in all:
        return None
    keys = (f"{name}.quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4"))
    state = next((key for key in keys if key in all), None)
    if state is None or all[state].dtype != torch.uint8 or all[state].numel() > LONGEST_STATE:
        return None
    try:
        said = json.loads(bytes(all[state].tolist()))
        shape, block = [int(n) for n in said["shape"]], int(said["blocksize"])
        inner, offset = int(said.get("nested_blocksize") or 0), float(said.get("nested_offset") or 0.0)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
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
    """int32 words along the last dimension as the fields of ``bits`` bits that they hold, the lowest first,
    as int32. A field may go on in the next word: 32 of them take ``bits`` words."""
    if 32 % bits == 0:
        shifts = torch.arange(0, 32, bits, dtype=torch.int32, device=packed.device)
        fields = packed.unsqueeze(-1) >> shifts
        fields &= (1 << bits) - 1
        return fields.flatten(-2)
    packed = torch.nn.functional.pad(packed, (0, -packed.shape[-1] % bits))
    groups = packed.reshape(*packed.shape[:-1], -1, bits)
    made = []
    for word, shift in (divmod(field * bits, 32) for field in range(32)):
        field = groups[..., word] >> shift
        if shift:
            field &= (1 << (32 - shift)) - 1
        if shift + bits > 32:
            field |= groups[..., word + 1] << (32 - shift)
        made.append(field & ((1 << bits) - 1))
    return torch.stack(made, -1).flatten(-2)


def _gptq_or_awq(name: str, packed: Tensor, all: Tensors, *, less: int) -> Logical | None:
    """``less`` is what zeros are stored less by: 1 in GPTQ's first format, 0 in its second."""
    if not name.endswith("qweight") or packed.dtype != torch.int32 or packed.dim() != 2:
        return None
    base = name.removesuffix("qweight")
    zeros, scales, index = (all.get(f"{base}{key}") for key in ("qzeros", "scales", "g_idx"))
    if zeros is None or scales is None or scales.dim() != 2 or zeros.dim() != 2 or zeros.dtype != torch.int32:
        return None
    groups, outputs = scales.shape
    if len(zeros) != groups or not groups or not outputs or not zeros.shape[1] or not packed.numel():
        return None
    stored = {name: packed, f"{base}qzeros": zeros, f"{base}scales": scales, f"{base}g_idx": index}
    bits = 32 * zeros.shape[1] // outputs
    if bits not in (2, 3, 4, 8) or zeros.shape[1] * 32 != bits * outputs:
        return None
    if packed.shape[1] == outputs:
        inputs = len(packed) * 32 // bits
        if len(packed) * 32 != inputs * bits:
            return None
        if index.shape != (inputs,) if index is not None else inputs % groups:
            return None

        def gptq() -> Tensor:
            rows = _groups(f"{base}g_idx", index, inputs, groups, packed)
            offset = _unpacked(zeros, bits) + less
            weights = _unpacked(packed.t(), bits).t()
            return ((weights - offset[rows]) * scales.float()[rows]).t().contiguous()

        kind = "GPTQ" if less else "GPTQ v2"
        return _logical(f"{base}weight", f"{kind} {bits} bit", (outputs, inputs), stored, gptq)
    if bits == 4 and packed.shape[1] * 8 == outputs and index is None and len(packed) % groups == 0:
        inputs = len(packed)

        def awq() -> Tensor:
            order = torch.tensor(_AWQ_ORDER, dtype=torch.int64, device=packed.device)
            weights = _unpacked(packed, 4).reshape(inputs, -1, 8)[..., order].flatten(-2)
            offset = _unpacked(zeros, 4).reshape(groups, -1, 8)[..., order].flatten(-2)
            rows = torch.arange(inputs, device=packed.device) // (inputs // groups)
            return ((weights - offset[rows]) * scales.float()[rows]).t().contiguous()

        return _logical(f"{base}weight", "AWQ 4 bit", (outputs, inputs), stored, awq)
    return None


def _groups(name: str, index: Tensor | None, inputs: int, groups: int, like: Tensor) -> Tensor:
    """The group of each input, by a stored index or in their order."""
    if index is None:
        return torch.arange(inputs, device=like.device) // (inputs // groups)
    rows = index.long()
    if int(rows.min()) < 0 or int(rows.max()) >= groups:
        raise Untold(f"{name} has a group outside its {groups} groups")
    return rows


def _fp4(packed: Tensor) -> Tensor:
    """Bytes as two E2M1 values each, the low four bits first, along the last dimension."""
    values = torch.tensor([*_FP4, *(-value for value in _FP4)], dtype=torch.float32, device=packed.device)
    # One look-up a byte: an index a value would take more memory than what is made.
    pairs = torch.stack((values.repeat(16), values.repeat_interleave(16)), 1)
    return pairs.index_select(0, packed.reshape(-1).int()).reshape(*packed.shape[:-1], -1)


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


def _powers(exponents: Tensor) -> Tensor:
    """E8M0: 2 to a byte less 127, and NaN for 255."""
    return exponents.view(torch.float8_e8m0fnu).float()


def _mxfp4(name: str, blocks: Tensor, all: Tensors) -> Logical | None:
    """``*_blocks`` as transformers keeps them, or ``*_packed`` as compressed-tensors does."""
    if blocks.dtype != torch.uint8 or blocks.dim() < 2:
        return None
    if name.endswith("_blocks"):
        base, key = name.removesuffix("_blocks"), "_scales"
        lead, shape = tuple(blocks.shape[:-1]), (*blocks.shape[:-2], blocks.shape[-2] * 32)
        fits = blocks.shape[-1] == 16
    else:
        base, key = name.removesuffix("_packed"), "_scale"
        lead, shape = (*blocks.shape[:-1], blocks.shape[-1] // 16), (*blocks.shape[:-1], blocks.shape[-1] * 2)
        fits = base != name and blocks.shape[-1] % 16 == 0
    scales = all.get(f"{base}{key}")
    if not fits or scales is None or scales.dtype not in _EXPONENTS or tuple(scales.shape) != tuple(lead):
        return None

    def values() -> Tensor:
        made = _fp4(blocks).reshape(*lead, 32)
        made *= _powers(scales).unsqueeze(-1)
        return made.reshape(shape)

    return _logical(base, "MXFP4", shape, {name: blocks, f"{base}{key}": scales}, values)


def _compressed(name: str, packed: Tensor, all: Tensors) -> Logical | None:
    """compressed-tensors ``pack-quantized``: fields with the lowest bits first, stored with an offset; zero
    points packed likewise, along the rows."""
    base = name.removesuffix("_packed")
    scale, said = all.get(f"{base}_scale"), all.get(f"{base}_shape")
    if base == name or packed.dtype != torch.int32 or scale is None or said is None or said.numel() != 2:
        return None
    if said.is_floating_point():
        return None
    rows, columns = (int(n) for n in said.reshape(-1).tolist())
    if packed.dim() != 2 or min(rows, columns) < 1 or len(packed) != rows:
        return None
    # Few columns fit several widths: those that divide a word are the usual ones.
    bits = next((b for b in (4, 8, 2, 1, 3, 5, 6, 7) if packed.shape[1] == -(-columns * b // 32)), None)
    if scale.numel() == 1:
        scale = scale.reshape(1, 1)
    if bits is None or scale.dim() != 2 or len(scale) not in (1, rows) or not scale.shape[1]:
        return None
    groups, width = scale.shape[1], bits
    zeros, index = all.get(f"{base}_zero_point"), all.get(f"{base}_g_idx")
    if index.shape != (columns,) if index is not None else columns % groups:
        return None
    if zeros is not None and not (
        (zeros.dtype == torch.int32 and tuple(zeros.shape) == (-(-rows * bits // 32), groups))
        or (zeros.dtype == torch.int8 and zeros.numel() == scale.numel())
    ):
        return None

    def values() -> Tensor:
        half = 1 << (width - 1)
        fields = _unpacked(packed, width)[:, :columns]
        fields -= half
        unset = index is not None and columns % groups == 0 and bool((index == -1).any())
        of = _groups(f"{base}_g_idx", None if unset else index, columns, groups, packed)
        if zeros is not None and zeros.dtype == torch.int32:
            fields -= (_unpacked(zeros.t(), width)[:, :rows] - half).t()[:, of]
        elif zeros is not None:
            fields -= zeros.reshape(scale.shape).int()[:, of]
        return fields * scale.float()[:, of]

    keys = ("scale", "shape", "zero_point", "g_idx")
    stored = {name: packed, **{f"{base}_{key}": all.get(f"{base}_{key}") for key in keys}}
    return _logical(base, f"compressed-tensors {bits} bit", (rows, columns), stored, values)


def _scaled(name: str, weight: Tensor, all: Tensors) -> Logical | None:
    """fp8 or int8 with a scale a tensor, a row, a group or a block of the last two dimensions; with
    ``_scale_inv``, int8 is two E2M1 values a byte, as transformers reads it."""
    if weight.dtype not in (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.float4_e2m1fn_x2):
        return None
    if weight.dim() < 2:
        return None
    keys = (f"{name}_scale_inv", f"{name}_scale")
    key = next((key for key in keys if key in all and _is_scale(all[key])), None)
    if key is None:
        return None
    scale, zeros = all[key], all.get(f"{name}_zero_point")
    floats = weight.dtype.is_floating_point
    pairs = weight.dtype == torch.float4_e2m1fn_x2 or (not floats and key.endswith("_inv"))
    powers = scale.dtype in _EXPONENTS
    shape = (*weight.shape[:-1], weight.shape[-1] * (2 if pairs else 1))
    if zeros is not None and (pairs or zeros.dtype != torch.int8 or zeros.numel() != scale.numel()):
        return None
    grid = _grid(shape, scale.shape)
    steps = None if grid is None else _steps(shape[-2:], grid[-2:], blocks=key.endswith("_inv"))
    if grid is None or steps is None or (powers and not (floats or pairs)):
        return None

    def spread(of: Tensor) -> Tensor:
        full = of.reshape(*grid).repeat_interleave(steps[0], -2)[..., : shape[-2], :]
        return full.repeat_interleave(steps[1], -1)[..., : shape[-1]]

    def values() -> Tensor:
        made = _fp4(weight.view(torch.uint8)) if pairs else weight.float()
        if zeros is not None:
            made -= spread(zeros.float())
        made *= spread(_powers(scale) if powers else scale.float())
        return made

    kind = f"{'fp4' if pairs else 'fp8' if floats else 'int8'} with {key[len(name) + 1 :]}"
    if powers and steps == (1, 32):
        kind = "MXFP4" if pairs else "MXFP8"
    return _logical(name, kind, shape, {name: weight, key: scale, f"{name}_zero_point": zeros}, values)


def _is_scale(scale: Tensor) -> bool:
    return scale.dtype in _EXPONENTS or (scale.is_floating_point() and scale.dtype.itemsize > 1)


def _grid(shape: Sequence[int], scale: Sequence[int]) -> tuple[int, ...] | None:
    """A scale's shape with as many dimensions as the weight has; None where they do not fit."""
    lead = tuple(shape[:-2])
    if len(scale) == len(shape):
        return tuple(scale) if tuple(scale[:-2]) in (lead, (1,) * len(lead)) else None
    if len(scale) == 1 and not lead:
        return (scale[0], 1)
    return (1,) * len(shape) if math.prod(scale) == 1 else None


def _steps(shape: Sequence[int], grid: Sequence[int], *, blocks: bool) -> tuple[int, int] | None:
    """How many rows and columns a scale is for. Blocks are of 128 x 128, the last ones cut."""
    steps = []
    for size, parts in zip(shape, grid, strict=True):
        if parts == 1:
            steps.append(max(size, 1))
        elif parts and size % parts == 0 and not (blocks and -(-size // 128) == parts):
            steps.append(size // parts)
        elif blocks and -(-size // 128) == parts:
            steps.append(128)
        else:
            return None
    return steps[0], steps[1]


def schemes(*, gptq_v2: bool) -> tuple[Scheme, ...]:
    """All of them, the special ones before the general. Only a model's configuration tells GPTQ's second
    format from its first."""
    return (
        _bitsandbytes_4bit,
        _bitsandbytes_8bit,
        functools.partial(_gptq_or_awq, less=0 if gptq_v2 else 1),
        _nvfp4,
        _mxfp4,
        _compressed,
        _scaled,
    )
