"""Norms whose powers leave float64's range beside infinities and NaNs, and clipping of gradients that lie in
each other's memory."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import pyparam

INF, NAN = math.inf, math.nan
ORDERS = [0.0, 0.5, 1.0, 2.0, 3.0, 8.0, 20.0, 300.0, INF, -INF]
# Each is more than a chunk, or one value: what a partial result is of.
PARTS = {
    "huge": torch.full((70_000,), 1e300, dtype=torch.float64),
    "tiny": torch.full((70_000,), 1e-300, dtype=torch.float64),
    "inf": torch.tensor([INF], dtype=torch.float64),
    "-inf": torch.tensor([-INF], dtype=torch.float64),
    "nan": torch.tensor([NAN], dtype=torch.float64),
    "zeros": torch.zeros(9, dtype=torch.float64),
    "ones": torch.ones(70_000, dtype=torch.float64),
}


def expected(tensors: list[Tensor], p: float) -> float:
    """What the norm is: by logarithms, which nothing leaves."""
    x = torch.cat([t.reshape(-1) for t in tensors]).abs()
    if p == 0:
        return float((x != 0).sum())
    if x.isnan().any():
        return NAN
    if p in (INF, -INF):
        return float(x.max() if p > 0 else x.min())
    if x.isinf().any():
        return INF
    largest = x.max()
    log = (
        (torch.logsumexp(p * (x / largest).log(), 0) / p + largest.log())
        if largest > 0
        else -torch.tensor(INF)
    )
    return float(log.exp())


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize(
    "names", [*itertools.permutations(PARTS, 2), ("huge", "tiny", "inf", "ones")], ids=str
)
def test_every_order_of_every_mixture(names: tuple[str, ...], p: float) -> None:
    tensors = [PARTS[name] for name in names]
    got = pyparam.total_norm(tensors, p).item()
    want = expected(tensors, p)
    if p == 0 and "nan" in names:
        return  # a NaN is not zero, for us as for torch
    assert (math.isnan(got) and math.isnan(want)) or got == pytest.approx(want, rel=1e-9)
    together = pyparam.total_norm([torch.cat(tensors)], p).item()
    assert (math.isnan(together) and math.isnan(want)) or together == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("p", [3.0, 8.0, 20.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64], ids=str)
def test_an_infinity_beside_large_values_in_one_tensor(dtype: torch.dtype, p: float) -> None:
    values = torch.cat([torch.full((8192,), 1e30), torch.tensor([INF])]).to(dtype)
    assert pyparam.total_norm([values], p).item() == INF


def test_clipping_by_an_infinite_norm_is_torchs() -> None:
    def clipped(clip) -> list[Tensor]:
        parameters = [nn.Parameter(torch.zeros(n, dtype=torch.float64)) for n in (70_000, 1)]
        parameters[0].grad, parameters[1].grad = PARTS["huge"].clone(), PARTS["inf"].clone()
        return [clip(parameters, 1.0), *(p.grad for p in parameters)]

    # The norm is infinite: finite gradients become zeros, the infinite one NaN.
    ours = clipped(pyparam.clip_grad_norm_)
    for a, b in zip(ours, clipped(torch.nn.utils.clip_grad_norm_), strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)
    assert ours[1].eq(0).all()


# gradients that overlap


def parameters_of(grads: list[Tensor]) -> list[nn.Parameter]:
    out = []
    for grad in grads:
        parameter = nn.Parameter(torch.zeros(grad.shape, dtype=grad.dtype))
        parameter.grad = grad
        out.append(parameter)
    return out


def check_scaled_once(buffer: Tensor, grads: list[Tensor]) -> None:
    """Every byte that is in some gradient is scaled once, the others not at all."""
    before = buffer.clone()
    touched = torch.zeros(buffer.shape, dtype=torch.bool)
    for grad in grads:
        touched.as_strided(grad.shape, grad.stride(), grad.storage_offset()).fill_(True)
    norm = pyparam.clip_grad_norm_(parameters_of(grads), 1.0)
    if buffer.dtype in (torch.float32, torch.float64):
        torch.testing.assert_close(
            norm,
            torch.nn.utils.get_total_norm(
                [before.as_strided(g.shape, g.stride(), g.storage_offset()) for g in grads]
            ),
        )
    by = (1 / (norm + 1e-6)).item()
    assert by < 1
    wide = torch.complex128 if buffer.is_complex() else torch.float64
    torch.testing.assert_close(buffer[touched], (before[touched].to(wide) * by).to(buffer.dtype))
    assert torch.equal(buffer[~touched], before[~touched])


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64], ids=str
)
def test_dense_gradients_that_overlap_are_scaled_once(dtype: torch.dtype) -> None:
    buffer = (torch.rand(3000) + 1).to(dtype)
    check_scaled_once(
        buffer, [buffer[i * 100 : i * 100 + 700] for i in (3, 0, 1, 1, 9)] + [buffer[2500:2600]]
    )


@pytest.mark.parametrize("threads", [1, 4])
def test_large_gradients_that_overlap_are_no_race(threads: int) -> None:
    was = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for _ in range(5):
            buffer = torch.ones(800_000)
            check_scaled_once(buffer, [buffer[i * 1000 : i * 1000 + 400_000] for i in range(8)])
    finally:
        torch.set_num_threads(was)


def test_strided_gradients_that_overlap_or_interleave() -> None:
    for grads in (
        lambda b: [b.view(60, 50)[:, :30], b.view(60, 50)[:, 20:]],
        lambda b: [b.view(60, 50)[:, :20], b.view(60, 50)[:, 20:]],
        lambda b: [b.view(60, 50).t(), b[100:200]],
        lambda b: [b[::2], b[::3]],
        lambda b: [b.view(60, 50)[5:9], b.view(60, 50)[:, 7], b.view(60, 50)[7]],
        lambda b: [b.as_strided((40, 30), (20, 1), 5)],  # rows that overlap one another
        lambda b: [b[:0], b[:100], b[50:150], b[7]],
    ):
        buffer = torch.rand(3000) + 1
        check_scaled_once(buffer, grads(buffer))


def test_versions_of_all_that_overlap_count_the_change() -> None:
    buffer = torch.ones(300)
    grads = [buffer[:200].view(10, 20), buffer[100:]]
    other = torch.ones(5)
    before = [g._version for g in (*grads, other)]
    pyparam.clip_grad_norm_(parameters_of([*grads, other]), 1.0)
    assert all(g._version > v for g, v in zip((*grads, other), before, strict=True))


def test_one_memory_under_two_dtypes_is_refused_before_a_byte_changes() -> None:
    buffer = torch.full((100,), 9.0)
    grads = [torch.full((7,), 9.0), buffer, buffer.view(torch.bfloat16)[20:40]]
    with pytest.raises(
        ValueError,
        match=r"clip_grad_norm_: parameter '1' \(Float\) and parameter '2' \(BFloat16\) overlap in memory",
    ):
        pyparam.clip_grad_norm_(parameters_of(grads), 1.0)
    assert buffer.eq(9).all()
    assert grads[0].eq(9).all()


def test_a_lazy_clone_gets_memory_of_its_own() -> None:
    original = torch.full((1000,), 3.0)
    clone = original._lazy_clone()
    pyparam.clip_grad_norm_(parameters_of([clone]), 1.0)
    assert original.eq(3).all()
    assert clone.norm().item() == pytest.approx(1.0, rel=1e-4)


def test_gradients_that_are_inference_tensors_are_refused_before_any_is_scaled() -> None:
    with torch.inference_mode():
        held = torch.full((3,), 5.0)
    parameters = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    parameters[0].grad, parameters[1].grad = torch.full((3,), 5.0), held
    with pytest.raises(
        ValueError, match="clip_grad_norm_: parameter '1' is an inference tensor; outside inference"
    ):
        pyparam.clip_grad_norm_(parameters, 1.0)
    assert all(p.grad is not None and p.grad.eq(5).all() for p in parameters)
    with torch.inference_mode():
        pyparam.clip_grad_norm_(parameters, 1.0)
    assert held.lt(5).all()
