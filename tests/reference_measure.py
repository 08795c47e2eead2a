"""Slow oracles of the measuring verbs, in float64 and plain PyTorch."""

from __future__ import annotations

import math
from typing import Any

import dtypes
import torch
from dtypes import FLOAT8
from torch import Tensor

FLOATS = [*dtypes.FLOATS, *FLOAT8]

# Smallest normal numbers; torch.finfo calls them tiny.
SMALLEST_NORMAL = {dtype: torch.finfo(dtype).tiny for dtype in FLOATS if dtype is not torch.float8_e8m0fnu}


def values_of(tensor: Tensor) -> Tensor:
    """The values as a flat float64 tensor, complex numbers as pairs."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.is_complex():
        if tensor.dtype is torch.complex32:
            tensor = torch.view_as_real(tensor)
        else:
            tensor = torch.view_as_real(tensor.contiguous())
    if tensor.dtype in FLOAT8:
        tensor = tensor.float()
    return tensor.contiguous().flatten().double()


def _scale(x: Tensor) -> float:
    """A power of two, so that dividing by it is exact, near the largest magnitude."""
    largest = x.abs().max().item() if x.numel() else 0.0
    return math.ldexp(1.0, max(-1000, math.frexp(largest)[1] - 1)) if largest else 1.0


def _root_of_squares(x: Tensor, divisor: int = 1) -> float:
    return _scale(x) * ((x / _scale(x)).square().sum() / divisor).sqrt().item()


def statistics(tensor: Tensor) -> dict[str, Any]:
    """The columns of a row of ``measure``."""
    x = values_of(tensor)
    finite = x[torch.isfinite(x)]
    n = finite.numel()
    nan = math.nan
    # Shifted by one of the values, and scaled, so that the oracle itself cancels and overflows nothing.
    scale = _scale(finite)
    shift = finite[0] / scale if n else torch.zeros((), dtype=torch.float64)
    d = finite / scale - shift
    mean = (shift + d.mean()).item() * scale if n else nan
    spread = (d - d.mean()).square().sum() if n else torch.tensor(nan)
    part = torch.float16 if tensor.dtype is torch.complex32 else tensor.dtype
    part = {torch.complex64: torch.float32, torch.complex128: torch.float64}.get(part, part)
    normal = SMALLEST_NORMAL.get(part, 0.0)
    return {
        "numel": tensor.numel(),
        "nbytes": tensor.numel() * tensor.element_size(),
        "min": finite.min().item() if n else nan,
        "max": finite.max().item() if n else nan,
        "mean": mean,
        "std": (spread / (n - 1)).sqrt().item() * scale if n > 1 else nan,
        "rms": _root_of_squares(finite, n) if n else nan,
        "l1": finite.abs().sum().item(),
        "l2": _root_of_squares(finite),
        "max_abs": finite.abs().max().item() if n else nan,
        "zeros": int((x == 0).sum()),
        "nans": int(torch.isnan(x).sum()),
        "posinfs": int((x == math.inf).sum()),
        "neginfs": int((x == -math.inf).sum()),
        "subnormals": int(((x != 0) & (x.abs() < normal)).sum()),
    }


def norm(tensors: list[Tensor], p: float) -> float:
    """The p-norm of all elements as of one vector, complex ones by their magnitude."""
    parts = []
    for tensor in tensors:
        tensor = tensor.detach().resolve_conj()
        if tensor.is_complex():
            parts.append(tensor.to(torch.complex128).abs().flatten())
        else:
            parts.append(values_of(tensor).abs())
    x = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
    if p == 0:
        return float((x != 0).sum())
    if x.numel() == 0:
        return math.inf if p == -math.inf and tensors else 0.0
    if math.isinf(p):
        return (x.max() if p > 0 else x.min()).item()
    return torch.linalg.vector_norm(x, p).item()
