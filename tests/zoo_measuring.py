"""Tensors for the kernels that measure: every dtype, every layout, every class of value."""

from __future__ import annotations

import torch
from reference_flatten import DTYPES
from torch import Tensor

ALL = [*DTYPES, torch.complex32, torch.float8_e8m0fnu]


def any_bits(count: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Every bit by chance: NaNs of all payloads, infinities, subnormals, zeros of both signs."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.empty(0, dtype=dtype).element_size()
    raw = torch.randint(0, 256, (count * size,), dtype=torch.uint8, generator=generator)
    if dtype == torch.bool:
        return raw > 127
    values = raw.view(dtype)
    # Chance hardly ever makes these of wide types.
    if dtype.is_floating_point and size > 1:
        for place, value in enumerate((0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-40, -1e-42)):
            values[place :: max(count // 3, 11)] = value
    return values


def ordinary(count: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Values such as weights have, whole ones where the dtype has no others."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, generator=generator, dtype=torch.float64)
    if dtype.is_complex:
        other = torch.randn(count, generator=generator, dtype=torch.float64)
        return (
            torch.complex(values, other).to(torch.complex64 if dtype == torch.complex32 else dtype).to(dtype)
        )
    if dtype.is_floating_point:
        return values.float().to(dtype) if dtype.itemsize == 1 else values.to(dtype)
    if dtype == torch.bool:
        return values > 0
    return (values * 30).abs().to(torch.int64).to(dtype)


def strange(values: Tensor) -> list[Tensor]:
    """The values, 600 or more, under layouts: unaligned, strided, overlapping, single, empty first,
    in the middle and last."""
    return [
        values[:0],
        values[:333],
        values[1:300],
        values[3:4],
        values[5:600:7],
        values[:480].reshape(20, 24).t(),
        values[: 4 * 5 * 6 * 4].reshape(4, 5, 6, 4).to(memory_format=torch.channels_last),
        values[:0].reshape(3, 0),
        values[: 4 * 5 * 6].reshape(4, 5, 6)[:, ::2, 1:],
        values[:6].reshape(6, 1).expand(6, 5),
        values[9],
        values[:64].reshape(1, 8, 1, 8).permute(3, 2, 1, 0),
        values[17:600],
        values[:0],
    ]
