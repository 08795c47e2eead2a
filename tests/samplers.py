"""The samplers, as the tests of filling and of distributions run through them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyparam import init

SEEDS = (0, 1, 2**63 + 12345)
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DRAWN: dict[str, Callable[..., Tensor]] = {
    "uniform_": init.uniform_,
    "normal_": init.normal_,
    "trunc_normal_": init.trunc_normal_,
    "far tail": functools.partial(init.trunc_normal_, a=8.0, b=9.0),
    "xavier_uniform_": init.xavier_uniform_,
    "xavier_normal_": init.xavier_normal_,
    "kaiming_uniform_": init.kaiming_uniform_,
    "kaiming_normal_": init.kaiming_normal_,
}
WHOLE = {
    **DRAWN,
    "orthogonal_": init.orthogonal_,
    "sparse_": functools.partial(init.sparse_, sparsity=0.4),
    "eye_": init.eye_,
}


def drawn(
    sampler: Callable[..., Tensor], *shape: int, dtype: torch.dtype = torch.float32, **options: Any
) -> Tensor:
    return sampler(torch.empty(*shape, dtype=dtype), **{"seed": 7, "stream": "layer.weight", **options})
