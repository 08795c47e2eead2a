"""zero_grad and requires_grad_ beside nn.Module's own."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

import pyparam
from pyparam._base.native import _C


def trained(model: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    net = model or nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 1)))
    net(torch.randn(4, 2)).sum().backward()
    return net


def grads(net: nn.Module) -> list[Any]:
    return [
        None if p.grad is None else (p.grad.tolist(), p.grad._version, p.grad.grad_fn)
        for p in net.parameters()
    ]


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("how", ["function", "installed"])
def test_gradients_are_dropped_or_zero(set_to_none: bool, how: str) -> None:
    theirs, ours = trained(), trained()
    theirs[0].bias.grad = ours[0].bias.grad = None
    held = [p.grad for p in ours.parameters()]
    theirs.zero_grad(set_to_none)
    assert _C.zero_grad(trained(), set_to_none)
    if how == "function":
        assert pyparam.zero_grad(ours, set_to_none) is None
    else:
        with pyparam.installed():
            assert ours.zero_grad(set_to_none=set_to_none) is None
    assert grads(ours) == grads(theirs)
    if not set_to_none:
        assert all(p.grad is grad for p, grad in zip(ours.parameters(), held, strict=True))


@pytest.mark.filterwarnings("ignore:Using backward")
def test_gradients_with_a_history_are_detached() -> None:
    made = []
    for zero in (nn.Module.zero_grad, pyparam.zero_grad):
        net = nn.Linear(2, 1)
        with torch.no_grad():
            net.weight.fill_(1.0)
            net.bias.fill_(1.0)
        (net(torch.ones(1, 2)) ** 2).sum().backward(create_graph=True)
        assert net.weight.grad.requires_grad
        zero(net, False)
        assert not net.weight.grad.requires_grad
        made.append([p.grad.tolist() for p in net.parameters()])
    assert made[0] == made[1] == [[[0.0, 0.0]], [0.0]]


class Own(nn.Linear):
    def zero_grad(self, set_to_none: bool = True) -> None:
        self.asked = set_to_none


class OwnParameters(nn.Linear):
    def parameters(self, recurse: bool = True) -> Any:
        return iter([self.bias])


class Scaled(torch.Tensor):
    pass


def test_classes_with_methods_of_their_own_are_asked() -> None:
    own = Own(1, 1)
    pyparam.zero_grad(own, False)
    assert own.asked is False
    for zero in (nn.Module.zero_grad, pyparam.zero_grad):
        net = trained(OwnParameters(2, 1))
        zero(net)
        assert net.bias.grad is None
        assert net.weight.grad is not None
    with pyparam.installed():
        net = trained(OwnParameters(2, 1))
        net.zero_grad()
        assert net.weight.grad is not None
    replica = trained()
    replica._is_replica = True
    for zero in (nn.Module.zero_grad, pyparam.zero_grad):
        with pytest.warns(
            UserWarning, match=re.escape("Calling .zero_grad() from a module created with nn.DataPar")
        ):
            zero(replica)


def test_other_sources_and_tensors() -> None:
    net = trained()
    pyparam.zero_grad(dict(net.named_parameters()), set_to_none=False)
    assert all(not p.grad.any() for p in net.parameters())
    pyparam.zero_grad(list(net.parameters()))
    assert all(p.grad is None for p in net.parameters())
    for set_to_none in (True, False):
        sub = nn.Linear(2, 2)
        sub.weight = nn.Parameter(torch.ones(2, 2).as_subclass(Scaled))
        sub.weight.grad = torch.ones(2, 2)
        pyparam.zero_grad(sub, set_to_none)
        assert sub.weight.grad is None if set_to_none else not sub.weight.grad.any()
    sparse = nn.Embedding(4, 2, sparse=True)
    sparse(torch.tensor([1, 2])).sum().backward()
    pyparam.zero_grad(sparse, set_to_none=False)
    assert sparse.weight.grad.is_sparse
    assert not sparse.weight.grad.to_dense().any()


def test_a_part_of_a_model_is_frozen() -> None:
    net = trained()
    assert pyparam.requires_grad_(net, "0.*", False).names == ["0.weight", "0.bias"]
    assert [p.requires_grad for p in net.parameters()] == [False, False, True, True, True, True]
    assert pyparam.requires_grad_(net, re.compile("bias$")).names == ["0.bias", "1.bias", "2.0.bias"]
    assert net[0].bias.requires_grad
    assert not net[0].weight.requires_grad
    assert pyparam.requires_grad_(net, lambda name, tensor: tensor.dim() == 2, False).names == [
        "0.weight",
        "2.0.weight",
    ]
    assert len(pyparam.requires_grad_(net)) == 6
    assert all(p.requires_grad for p in net.parameters())
    assert pyparam.requires_grad_(nn.ReLU(), "*", False).names == []


def test_what_cannot_require_gradients_is_named_and_nothing_changed() -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"requires_grad_: none of 2 parameters matches 'wieght'"):
        pyparam.requires_grad_(net, "wieght", False)
    with pytest.raises(TypeError, match="expected a glob"):
        pyparam.requires_grad_(net, 3, False)
    net.count = nn.Parameter(torch.tensor([1]), requires_grad=False)
    net.bias.requires_grad_(False)
    with pytest.raises(
        ValueError, match="requires_grad_: parameter 'count' has dtype Long; only floating-point and complex"
    ):
        pyparam.requires_grad_(net)
    assert not net.bias.requires_grad
    pyparam.requires_grad_(net, "*", False)
    made = torch.ones(2, requires_grad=True) * 2
    with pytest.raises(ValueError, match="requires_grad_: parameter 'b' is no leaf but computed from others"):
        pyparam.requires_grad_({"a": net.weight, "b": made}, "*", False)
    assert pyparam.requires_grad_({"b": made}).names == ["b"]
    with torch.inference_mode():
        frozen = torch.ones(2)
    with pytest.raises(ValueError, match="parameter 'w' is an inference tensor"):
        pyparam.requires_grad_({"w": frozen})
