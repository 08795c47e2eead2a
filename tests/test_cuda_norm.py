"""total_norm and clip_grad_norm_ on a CUDA device, against the CPU's and PyTorch's."""

from __future__ import annotations

import math

import pytest
import torch
from cuda_helpers import bits, captured, churn, launches, no_waiting, on_device
from test_bodies_measuring import ORDERS
from torch import Tensor, nn
from zoo_measuring import ALL, any_bits, ordinary, strange

import pyparam

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
]

ops = torch.ops.pyparam
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64]


def close(a: Tensor, b: Tensor) -> None:
    rtol = 1e-12 if b.dtype == torch.float64 else 1e-7
    torch.testing.assert_close(a.cpu(), b.cpu(), rtol=rtol, atol=0, equal_nan=True)


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_norms_of_every_dtype_and_layout(dtype: torch.dtype, p: float) -> None:
    for make in (any_bits, ordinary):
        tensors = [*strange(make(700, dtype)), make(200_001, dtype)]
        got = ops.total_norm(on_device(tensors), p)
        assert got.is_cuda
        close(got, ops.total_norm(tensors, p))


@pytest.mark.parametrize("p", ORDERS)
def test_norms_beyond_the_range_of_powers(p: float) -> None:
    x = ordinary(100_000, torch.float64)
    for tensors in ([x * 1e200], [x * 1e-200], [x * 1e-170, x * 1e170], [x * 0], [x[:0]]):
        close(ops.total_norm(on_device(tensors), p), ops.total_norm(tensors, p))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("max_norm", [0.1, 1e9])
def test_clipping(dtype: torch.dtype, max_norm: float) -> None:
    tensors = [t for t in strange(ordinary(700, dtype)) if 0 not in t.stride()]
    ours = on_device(tensors)
    for p in (2.0, math.inf, 0.0):
        before = [t.clone() for t in ours]
        norm = ops.clip_grad_norm_(ours, max_norm, p)
        by = (1 / (norm + 1e-6) * max_norm).clamp(max=1)
        for old, new in zip(before, ours, strict=True):
            wide = torch.view_as_real(old) if dtype.is_complex else old
            expected = (wide.to(torch.promote_types(wide.dtype, torch.float32)) * by).to(wide.dtype)
            got = torch.view_as_real(new) if dtype.is_complex else new
            assert torch.equal(got, expected)


def test_clipping_a_model_as_pytorch_does() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 50), nn.Linear(50, 10)).cuda()
    model(torch.randn(8, 100, device="cuda")).square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    versions = [p.grad._version for p in model.parameters()]
    norm = pyparam.clip_grad_norm_(model, 1.0)
    ours = [p.grad.clone() for p in model.parameters()]
    assert all(p.grad._version > v for p, v in zip(model.parameters(), versions, strict=True))
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        p.grad = gradient
    close(norm, torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).float())
    for a, p in zip(ours, model.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-6, atol=0)


def test_memory_in_the_list_twice_is_scaled_once() -> None:
    base = torch.full((100,), 2.0, device="cuda")
    norm = ops.clip_grad_norm_([base, base], 1.0)
    by = (1 / (norm + 1e-6)).item()
    torch.testing.assert_close(base, torch.full_like(base, 2 * by))


def test_errors_about_values_wait_and_name_the_parameter() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).cuda()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model[1].bias.grad[1] = math.inf
    with pytest.raises(RuntimeError, match="non-finite.*parameter '1.bias'"):
        pyparam.clip_grad_norm_(model, 1.0, error_if_nonfinite=True)
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    with pytest.raises(TypeError, match=r"tensors\[0\] has dtype Int"):
        ops.clip_grad_norm_([torch.ones(3, dtype=torch.int32, device="cuda")], 1.0)
    with pytest.raises(ValueError, match=r"tensors\[0\] is expanded"):
        ops.clip_grad_norm_([torch.ones(1, device="cuda").expand(3)], 1.0)


def test_nobody_waits_and_launches_are_few() -> None:
    tensors = [torch.ones(k % 70, device="cuda") for k in range(20_000)]
    ops.clip_grad_norm_(tensors, 1.0)
    with no_waiting():
        norm = ops.total_norm(tensors)
        ops.clip_grad_norm_(tensors, 1.0)
    assert norm.isfinite()
    assert launches(lambda: ops.total_norm(tensors)) == 2
    assert launches(lambda: ops.total_norm(tensors, math.inf)) == 2
    assert launches(lambda: ops.clip_grad_norm_(tensors, 1.0)) == 3


def test_run_to_run_the_same_bits() -> None:
    tensors = on_device([ordinary(3_000_001, torch.float32), *strange(ordinary(700, torch.bfloat16))])
    for p in ORDERS:
        first = bits(ops.total_norm(tensors, p))
        assert all(torch.equal(bits(ops.total_norm(tensors, p)), first) for _ in range(10))


def test_gradients_on_the_cpu_and_on_a_device() -> None:
    x = ordinary(3000, torch.float32)
    for p in ORDERS:
        both = [x[:1000].clone(), x[1000:].cuda(), torch.zeros(5)]
        got = ops.total_norm(both, p)
        assert got.is_cuda
        close(got, ops.total_norm([x, torch.zeros(5)], p))
    both = [x[:1000].clone(), x[1000:].cuda(), torch.zeros(5)]
    norm = ops.clip_grad_norm_(both, 1.0, 0.0)
    assert norm.item() == 2
    torch.testing.assert_close(torch.cat([both[0], both[1].cpu()]), x / 2, rtol=1e-5, atol=0)


def test_a_captured_graph_clips_the_gradients_of_each_replay() -> None:
    model = nn.Sequential(*(nn.Linear(17, 17) for _ in range(100))).cuda()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    table = pyparam.walk(model)
    graph, norm = captured(lambda: pyparam.total_norm(table, grad=True))
    clip, _ = captured(lambda: pyparam.clip_grad_norm_(table, 1.0))
    for value in (1.0, 2.0, 3.0):
        churn()
        for p in model.parameters():
            p.grad.fill_(value)
        graph.replay()
        expected = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
        close(norm, expected)
        clip.replay()
        after = pyparam.total_norm(table, grad=True).item()
        assert after == pytest.approx(1, rel=1e-5)


def test_opcheck() -> None:
    tensors = [torch.randn(3, 4, device="cuda").t(), torch.randn(5, device="cuda")]
    torch.library.opcheck(ops.total_norm.default, (tensors, 2.0))
    torch.library.opcheck(ops.clip_grad_norm_.default, (tensors, 1.0))
