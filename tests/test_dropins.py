"""Functions with PyTorch's names beside PyTorch's own: the cases of its tests, with ours in their place.

What differs on purpose is listed in docs/differences.md; the last test here holds that list.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, parameters_to_vector, vector_to_parameters

import pyparam

ORDERS = [0.1, 0.5, 1, 1.5, 2, 3.5, 4, "inf", math.inf, 0, -0.1, -1, -2, -3.5, -math.inf]


def twins(grads: list[Tensor | None]) -> tuple[list[Tensor], list[Tensor]]:
    def made() -> list[Tensor]:
        out = []
        for grad in grads:
            parameter = torch.zeros(3 if grad is None else grad.shape, requires_grad=True)
            parameter.grad = None if grad is None else grad.clone()
            out.append(parameter)
        return out

    return made(), made()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("max_norm", [2, 0.01, 1e6])
def test_gradients_are_clipped_as_pytorch_clips_them(order: Any, max_norm: float) -> None:
    torch.manual_seed(0)
    grads = [
        torch.arange(1.0, 101).view(10, 10),
        torch.ones(10).div(1000),
        None,
        torch.randn(3, 0),
        torch.randn(()),
    ]
    if float(order) < 0 or math.isinf(float(order)):
        grads[3] = None  # PyTorch has no such norm of nothing
    ours, theirs = twins(grads)
    norm = pyparam.clip_grad_norm_(ours, max_norm, norm_type=order)
    theirs_norm = clip_grad_norm_(theirs, max_norm, norm_type=order)
    torch.testing.assert_close(norm, theirs_norm, rtol=1e-5, atol=0)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=0)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("refuse", [True, False])
def test_norms_that_are_not_finite(order: Any, value: float, refuse: bool) -> None:
    ours, theirs = twins([torch.ones(10), torch.tensor([1.0, value, 3.0])])
    told = []
    for clip, parameters in ((clip_grad_norm_, theirs), (pyparam.clip_grad_norm_, ours)):
        before = [p.grad.clone() for p in parameters]
        try:
            told.append(clip(parameters, 1.0, order, error_if_nonfinite=refuse))
        except RuntimeError as error:
            assert all(
                torch.equal(p.grad.isnan(), b.isnan()) for p, b in zip(parameters, before, strict=True)
            )
            told.append(str(error))
    if isinstance(told[0], str):
        assert f"The total norm of order {float(order)} for gradients from" in told[1]
        assert told[0].split(" is non-finite")[0] == told[1].split(" is non-finite")[0]
        assert "set `error_if_nonfinite=False`" in told[1]
        return
    torch.testing.assert_close(told[1], told[0], equal_nan=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, equal_nan=True)


def test_what_clip_takes() -> None:
    single, listed = twins([torch.arange(0.0, 100).view(10, 10)])
    for clip in (clip_grad_norm_, pyparam.clip_grad_norm_):
        (one,), (other,) = twins([torch.arange(0.0, 100).view(10, 10)])
        clip(one, 0.5)
        clip([other], 0.5)
        assert torch.equal(one.grad, other.grad)
        assert clip([], 1.0).item() == 0
        assert clip((p for p in [nn.Parameter(torch.ones(2))]), 1.0).item() == 0
    for foreach in (None, True, False):
        assert torch.equal(
            pyparam.clip_grad_norm_(single, 1e9, foreach=foreach),
            clip_grad_norm_(listed, 1e9, foreach=foreach),
        )


def test_vectors() -> None:
    model = nn.Sequential(nn.Conv2d(3, 10, 5), nn.Linear(10, 20))
    vector = pyparam.parameters_to_vector(model.parameters())
    assert vector.size(0) == 980
    assert torch.equal(vector, parameters_to_vector(model.parameters()))
    values = torch.arange(0.0, 980)
    pyparam.vector_to_parameters(values, model.parameters())
    sample = next(model.parameters())[0, 0, 0]
    assert torch.equal(sample.data, values[:5])
    twin = nn.Sequential(nn.Conv2d(3, 10, 5), nn.Linear(10, 20))
    vector_to_parameters(values, twin.parameters())
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
    for function in (vector_to_parameters, pyparam.vector_to_parameters):
        with pytest.raises(TypeError):
            function([1.0], model.parameters())


def loop() -> nn.Module:
    net = nn.Sequential(nn.Linear(1, 1))
    net[0].add_module("up", net)
    return net


def test_the_differences_that_are_told() -> None:
    net = loop()
    for own, ours in (
        (lambda: net.state_dict(), lambda: pyparam.state_dict(net)),
        (
            lambda: list(net.named_modules(remove_duplicate=False)),
            lambda: list(pyparam.named_modules(net, remove_duplicate=False)),
        ),
    ):
        with pytest.raises(RecursionError):
            own()
        with pytest.raises(ValueError, match="its own ancestor"):
            ours()

    weights = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.float64))]
    with pytest.raises(ValueError, match="too long"):
        pyparam.vector_to_parameters(torch.ones(5), weights)
    with pytest.raises(TypeError, match="is torch.float64 and the vector torch.float32"):
        pyparam.vector_to_parameters(torch.full((4,), 2.0), weights)
    assert all(torch.equal(w, torch.ones_like(w)) for w in weights)
    vector_to_parameters(torch.full((5,), 2.0), weights)
    assert [w.dtype for w in weights] == [torch.float32, torch.float32]

    halves = [torch.full((4096,), 30.0, dtype=torch.float16)]
    assert pyparam.total_norm(halves).dtype == torch.float32
    assert torch.nn.utils.get_total_norm(halves).dtype == torch.float16

    (one,) = twins([torch.ones(2)])[0]
    with pytest.raises(ValueError, match="the order of the norm must be"):
        pyparam.clip_grad_norm_(one, 1.0, math.nan)
    one.grad = torch.ones(1).expand(2)
    with pytest.raises(ValueError, match="is expanded"):
        pyparam.clip_grad_norm_(one, 1.0)

    iterator = pyparam.parameters(net)
    assert type(iterator).__name__ == "MemberIterator"
    assert not hasattr(iterator, "gi_frame")
