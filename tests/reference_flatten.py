"""Slow oracles of the flatten family, in plain PyTorch."""

from __future__ import annotations

import dtypes
import torch
from dtypes import FLOATS, INTEGERS
from torch import Tensor

FLOAT8 = dtypes.FLOAT8[:4]
COMPLEX = dtypes.COMPLEX[:2]
DTYPES = [*FLOATS, *FLOAT8, *INTEGERS, *COMPLEX, torch.bool]


def flattened(tensors: list[Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """Every tensor resolved, made contiguous and converted by itself, then put one after the other."""
    dtype = dtype or tensors[0].dtype
    vector = torch.empty(sum(t.numel() for t in tensors), dtype=dtype)
    offset = 0
    for tensor in tensors:
        plain = tensor.detach().resolve_conj().resolve_neg()
        vector[offset : offset + plain.numel()].copy_(plain.contiguous().view(-1).to(dtype))
        offset += plain.numel()
    return vector


def same(a: Tensor, b: Tensor) -> bool:
    """Equal in shape, dtype and value, where NaN equals NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype in FLOAT8:
        a, b = a.float(), b.float()
    elif a.dtype in (torch.uint16, torch.uint32, torch.uint64):
        a, b = a.view(torch.int8), b.view(torch.int8)
    if a.is_floating_point() or a.is_complex():
        return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
    return torch.equal(a, b)


def filled(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Small values that every dtype holds, so that conversions are defined for all pairs."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 8, shape, generator=generator)
    if dtype == torch.bool:
        return values > 3
    if dtype.is_floating_point and dtype not in FLOAT8:
        return (values.double() + torch.rand(shape, generator=generator, dtype=torch.float64)).to(dtype)
    if dtype.is_complex:
        return torch.complex(values.double(), -values.double() / 4).to(dtype)
    return values.float().to(dtype)


def zoo(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """One tensor of every layout, empties first, in the middle and last."""
    base = filled((4, 6, 3, 5), dtype)
    return [
        filled((0,), dtype),
        filled((7, 3), dtype, 1),
        filled((6, 10), dtype, 2).t(),
        base.contiguous(memory_format=torch.channels_last),
        base[:, ::2, 1:, ::3],
        base.permute(3, 1, 0, 2),
        filled((3, 0, 2), dtype),
        filled((1, 5), dtype, 3).expand(4, 5),
        filled((), dtype, 4),
        filled((1,), dtype, 5).expand(9),
        filled((5,), dtype, 6)[1:4],
        base[0, 0, 0, 0],
        filled((2, 1, 3), dtype, 7),
        filled((0, 4), dtype),
    ]
