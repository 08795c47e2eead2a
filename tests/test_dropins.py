"""Functions with PyTorch's names beside PyTorch's own: the cases of its tests, with ours in their place.

What differs on purpose is listed in docs/differences.md; the last test here holds that list.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import (
    clip_grad_norm_,
    clip_grads_with_norm_,
    parameters_to_vector,
    vector_to_parameters,
)

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


def linear_norm(layer: nn.Module, order: float) -> Tensor:
    magnitudes = torch.cat([p.grad.abs().flatten() for p in layer.parameters()])
    return magnitudes.max() if math.isinf(order) else magnitudes.pow(order).sum().pow(1 / order)


def scales(layer: nn.Module, grads: tuple[Tensor, Tensor]) -> Tensor:
    return torch.cat([(p.grad / g).flatten() for p, g in zip(layer.parameters(), grads, strict=True)])


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("order", [0.5, 1.5, 2, 4, "inf"])
@pytest.mark.parametrize("whole", [True, False])
def test_clipping_as_pytorch_tests_it(order: Any, foreach: bool, whole: bool) -> None:
    layer, most = nn.Linear(10, 10), 2

    def clip() -> Tensor:
        if whole:
            return pyparam.clip_grad_norm_(layer.parameters(), most, norm_type=order, foreach=foreach)
        norm = pyparam.total_norm([p.grad for p in layer.parameters()], order)
        clip_grads_with_norm_(layer.parameters(), most, norm, foreach=foreach)
        return norm

    large = torch.arange(1.0, 101).view(10, 10), torch.ones(10).div(1000)
    small = torch.rand(10, 10).div(10000), torch.ones(10).div(500)
    for grads, expected in ((large, most), (small, None)):
        for parameter, grad in zip(layer.parameters(), grads, strict=True):
            parameter.grad = grad.clone()
        before = linear_norm(layer, float(order))
        torch.testing.assert_close(clip(), before)
        after = linear_norm(layer, float(order))
        torch.testing.assert_close(after, before if expected is None else torch.tensor(float(expected)))
        scale = scales(layer, grads)
        torch.testing.assert_close(scale.std(), torch.zeros(()), atol=1e-5, rtol=0)
        assert expected is not None or torch.equal(scale, torch.ones_like(scale))


@pytest.mark.parametrize("parameters", [nn.Module.parameters, pyparam.parameters])
def test_the_warning_of_an_exhausted_generator(parameters: Any) -> None:
    layer = nn.Linear(2, 2)
    for clip in (clip_grad_norm_, pyparam.clip_grad_norm_):
        exhausted = parameters(layer)
        list(exhausted)
        words = "^`parameters` is an empty generator, no gradient clipping will occur.$"
        with pytest.warns(UserWarning, match=words) as told:
            clip(exhausted, 1.0)
        assert [warning.filename for warning in told] == [__file__]


POSITIVE, NEGATIVE = [0.1, 1, 2, 3.5, math.inf], [-0.1, -1, -2, -3.5]
EACH = [*POSITIVE, *NEGATIVE, 0]
# (scalars, one element alone, a finite gradient before it, the orders whose norm is not finite), as PyTorch's
# own test has them, but for the last three lines: there its norms of the orders 2 and 3.5 overflow.
NONFINITE: list[tuple[list[float], bool, bool, list[float]]] = [
    ([math.inf, -math.inf], False, False, [*POSITIVE, *NEGATIVE]),
    ([math.inf, -math.inf], False, True, POSITIVE),
    ([math.inf, -math.inf], True, False, POSITIVE),
    ([math.inf, -math.inf], True, True, POSITIVE),
    *(([math.nan], one, before, [*POSITIVE, *NEGATIVE]) for one in (False, True) for before in (False, True)),
    *(([2e22, -2e22], one, before, []) for one in (False, True) for before in (False, True)),
    ([2e200, -2e200], False, False, [-2, -3.5]),
    ([2e200, -2e200], False, True, []),
    ([2e200, -2e200], True, False, []),
    ([2e200, -2e200], True, True, []),
]


@pytest.mark.parametrize(("scalars", "one", "before", "nonfinite"), NONFINITE)
def test_which_norms_are_refused(
    scalars: list[float], one: bool, before: bool, nonfinite: list[float]
) -> None:
    for scalar, order in itertools.product(scalars, EACH):
        parameter = torch.ones(10, dtype=torch.float64, requires_grad=True)
        (parameter[1] if one else parameter).mul(scalar).sum().backward()
        parameters = [parameter]
        if before:
            first = torch.ones(1, dtype=torch.float64, requires_grad=True)
            first.sum().backward()
            parameters.insert(0, first)
        grads = [p.grad.clone() for p in parameters]
        if order in nonfinite:
            with pytest.raises(RuntimeError, match=f"The total norm of order {float(order)} for gradients"):
                pyparam.clip_grad_norm_(parameters, 1, order, error_if_nonfinite=True)
            for p, grad in zip(parameters, grads, strict=True):
                torch.testing.assert_close(p.grad, grad, rtol=0, atol=0, equal_nan=True)
        else:
            pyparam.clip_grad_norm_(parameters, 1, order, error_if_nonfinite=True)
        pyparam.clip_grad_norm_(parameters, 1, order)


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

    turned = [nn.Parameter(torch.arange(6.0).view(2, 3).t())]
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        parameters_to_vector(turned)
    assert pyparam.parameters_to_vector(turned).tolist() == [0, 3, 1, 4, 2, 5]
    own, theirs, vector = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2)), torch.zeros(2)
    pyparam.vector_to_parameters(vector, [own])
    vector_to_parameters(vector, [theirs])
    vector.fill_(5)
    assert own.tolist() == [0, 0]
    assert theirs.tolist() == [5, 5]

    shared = torch.full((4,), 3.0)
    for clip, wanted in ((clip_grad_norm_, (1 / 72**0.5) ** 2), (pyparam.clip_grad_norm_, 1 / 72**0.5)):
        pair = [nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))]
        pair[0].grad = pair[1].grad = grad = shared.clone()
        torch.testing.assert_close(clip(pair, 1.0), torch.tensor(72**0.5))
        torch.testing.assert_close(grad, shared * wanted)

    weights = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.float64))]
    with pytest.raises(TypeError, match="expected one dtype"):
        pyparam.parameters_to_vector(weights)
    assert parameters_to_vector(weights).dtype == torch.float64
    with pytest.raises(ValueError, match="too long"):
        pyparam.vector_to_parameters(torch.ones(5), weights)
    with pytest.raises(TypeError, match="is torch.float64 and the vector torch.float32"):
        pyparam.vector_to_parameters(torch.full((4,), 2.0), weights)
    assert all(torch.equal(w, torch.ones_like(w)) for w in weights)
    vector_to_parameters(torch.full((5,), 2.0), weights)
    assert [w.dtype for w in weights] == [torch.float32, torch.float32]

    large = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    large.grad = torch.full((2,), 2e200, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="non-finite"):
        clip_grad_norm_(large, 1.0, error_if_nonfinite=True)
    norm = pyparam.clip_grad_norm_(large, 1.0, error_if_nonfinite=True)
    assert norm.item() == pytest.approx(2e200 * math.sqrt(2))

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
