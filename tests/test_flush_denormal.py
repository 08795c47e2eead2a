"""Nothing we compute depends on torch.set_flush_denormal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import pyparam
from pyparam import init

OPS = torch.ops.pyparam


@contextmanager
def flushing() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("this machine flushes no denormals")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def tiny64() -> Tensor:
    return torch.tensor([1e-310, -3e-310, 2e-310, 5e-310], dtype=torch.float64)


def long64() -> Tensor:
    """Several chunks, so that what is combined is subnormal too."""
    big = torch.full((200_000,), 1e-310, dtype=torch.float64)
    big[150_000], big[199_999] = -4e-310, 7e-310
    return big


def tiny32() -> Tensor:
    return torch.tensor([1e-40, -3e-40, 2e-40, 5e-40])


def tiny16() -> Tensor:
    return torch.linspace(-6e-5, 6e-5, 1001).half()


def quantities() -> dict[str, Callable[[], Any]]:
    x64, big, x32, x16 = tiny64(), long64(), tiny32(), tiny16()
    every = [x64, big, x32, x16]
    turned, others = [x.flip(0) for x in every], [x32.flip(0).double(), x16.flip(0).float()]
    stats = pyparam.measure(every, histogram=True, quantiles=[0.1, 0.5])
    return {
        "measure": lambda: OPS.measure(every),
        "histogram": lambda: OPS.measure_histogram(every),
        **{
            f"norm {p}": lambda p=p: [OPS.total_norm([x], p) for x in every]
            for p in (0.0, 1.0, 2.0, 3.0, float("inf"), float("-inf"))
        },
        "norm of all": lambda: OPS.total_norm(every, 2.0),
        "compare": lambda: OPS.compare(every, turned),
        "compare of two dtypes": lambda: OPS.compare([x32, x16], others),
        "fingerprint": lambda: OPS.fingerprint(every),
        "flatten": lambda: [
            OPS.flatten([x], dtype)
            for x in every
            for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
        ],
        "quantile": lambda: stats.quantile(0.37),
        "quantiles": lambda: stats.quantiles,
        "underflow": lambda: repr(stats.underflow(torch.float16)),
        "columns": lambda: [
            getattr(pyparam.measure(every), name)
            for name in ("min", "max", "mean", "std", "rms", "l1", "l2", "max_abs")
        ],
        "total": lambda: torch.tensor(
            [getattr(pyparam.measure(every).total, name) for name in ("mean", "std", "rms", "l1", "l2")],
            dtype=torch.float64,
        ),
        "comparison": lambda: [
            getattr(pyparam.compare({"a": big}, {"a": turned[1]}), name)
            for name in ("max_abs", "mean_abs", "l2", "rel_l2", "cosine")
        ],
    }


def bits(value: Any) -> list[bytes]:
    if isinstance(value, str):
        return [value.encode()]
    if isinstance(value, Tensor):
        dense = value.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
        return [bytes(dense.view(torch.uint8).tolist())]
    return [part for item in value for part in bits(item)]


@pytest.mark.parametrize("name", list(quantities()))
def test_the_same_bits_while_torch_flushes(name: str) -> None:
    quantity = quantities()[name]
    plain = bits(quantity())
    with flushing():
        flushed = quantity()
    assert bits(flushed) == plain


SAMPLERS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda t: init.normal_(t, 0.0, 1e-38, seed=0, stream="s"),
    "uniform": lambda t: init.uniform_(t, -1e-39, 3e-39, seed=0, stream="s"),
    "truncated": lambda t: init.trunc_normal_(t, 0.0, 1e-38, -1e-38, 2e-38, seed=0, stream="s"),
    "far tail": lambda t: init.trunc_normal_(t, 0.0, 1e-39, 7e-39, 9e-39, seed=0, stream="s"),
    "constant": lambda t: OPS.fill_([t], [0], [3e-41, 0.0, 0.0, 0.0], 0, [0], [], []),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_weights_while_torch_flushes(name: str, dtype: torch.dtype) -> None:
    sampler = SAMPLERS[name]
    if dtype == torch.float16 and name != "normal":
        pytest.skip("an interval without a float16 in it")
    plain, flushed = torch.empty(300_000, dtype=dtype), torch.empty(300_000, dtype=dtype)
    sampler(plain)
    with flushing():
        sampler(flushed)
    assert bits(plain) == bits(flushed)


def test_scaling_keeps_subnormals() -> None:
    def clipped() -> list[Tensor]:
        parameter = torch.nn.Parameter(torch.zeros(3))
        parameter.grad = torch.tensor([1e-37, 3e-38, 1e3])
        return [pyparam.clip_grad_norm_(parameter, 1.0), parameter.grad]

    plain = clipped()
    with flushing():
        flushed = clipped()
    assert bits(plain) == bits(flushed)
    assert plain[1][0] > 0
