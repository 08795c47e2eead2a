"""load_ into tensors whose elements or memory are not their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pyparam

DTYPES = [
    torch.float32,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.complex64,
    torch.bool,
    torch.uint16,
    torch.uint32,
    torch.uint64,
]


def module(**tensors: Tensor) -> nn.Module:
    net = nn.Module()
    for name, tensor in tensors.items():
        if tensor.is_floating_point() or tensor.is_complex():
            net.register_parameter(name, nn.Parameter(tensor))
        else:
            net.register_buffer(name, tensor)
    return net


@pytest.mark.parametrize("dtype", DTYPES)
def test_elements_that_share_places(dtype: torch.dtype) -> None:
    rows = torch.zeros(1, 3, dtype=dtype).expand(4, 3)
    net = module(rows=rows, other=torch.zeros(2))
    one = torch.tensor([[1, 0, 1]]).to(dtype)
    pyparam.load_(net, {"rows": one.expand(4, 3), "other": torch.ones(2)})
    assert rows.float().tolist() == [[1, 0, 1]] * 4 if not dtype.is_complex else bool((rows == one).all())
    differing = torch.tensor([[1, 0, 1]] * 3 + [[1, 1, 1]]).to(dtype)
    words = (
        r"load_: elements of 'rows' share places in the model \(strides \[0, 1\]\), and the source gives them"
    )
    with pytest.raises(ValueError, match=words):
        pyparam.load_(net, {"rows": differing, "other": torch.zeros(2)})
    assert net.other.tolist() == [1, 1]
    assert torch.equal(rows[0].to(torch.complex64), one[0].to(torch.complex64))


def test_tied_tensors_of_one_element_that_lie_apart() -> None:
    net = nn.Module()
    net.register_buffer("a", torch.zeros(2)[::2])
    net.register_buffer("b", net.a)
    value = torch.ones(2)[::2]
    pyparam.load_(net, {"a": value, "b": value.clone()})
    assert net.a.item() == 1
    with pytest.raises(ValueError, match="load_: the model ties 'a' and 'b'"):
        pyparam.load_(net, {"a": value, "b": value + 1})


@pytest.mark.parametrize("hooked", [False, True])
def test_assigned_values_without_memory_for_a_device(hooked: bool) -> None:
    net = nn.Linear(2, 2)
    if hooked:
        net.register_load_state_dict_pre_hook(lambda *_: None)
    state = {"weight": torch.ones(2, 2), "bias": torch.ones(2, device="meta")}
    before = [net.weight, net.bias]
    with pytest.raises(
        ValueError, match="load_: 'bias' is on the meta device in the source and has no values"
    ):
        pyparam.load_(net, state, assign=True, device="cpu")
    assert net.weight is before[0]
    assert net.bias is before[1]


def test_what_no_state_dict_has_is_put_back_where_it_shares_memory() -> None:
    net = nn.Module()
    net.register_buffer("whole", torch.arange(3.0), persistent=False)
    net.register_buffer("part", net.whole[:1])
    net.register_parameter("weight", nn.Parameter(torch.ones(2)))
    state: dict[str, Any] = {"part": torch.tensor([7.0]), "weight": torch.ones(2, dtype=torch.int32)}
    with pytest.raises(ValueError, match="require gradients"):
        pyparam.load_(net, state, assign=True, cast=True)
    assert net.whole.tolist() == [0, 1, 2]
    assert net.part.data_ptr() == net.whole.data_ptr()


class Unwrapping(nn.Module):
    """Its own ``load_state_dict`` takes names without the part of a wrapper."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 2)

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> None:  # type: ignore[override]
        self.net.load_state_dict({n.removeprefix("net."): v for n, v in state_dict.items()}, strict)


def test_a_load_state_dict_of_the_models_own_is_asked() -> None:
    model = Unwrapping()
    bare = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    assert pyparam.load_(model, bare) == ([], [])
    assert model.net.weight.sum() == 4
    pyparam.load_(model, {f"net.{name}": value * 2 for name, value in bare.items()})
    assert model.net.weight.sum() == 8
    with pytest.raises(ValueError, match="load_: Error.s. in loading state_dict for Linear"):
        pyparam.load_(model, {"weight": torch.zeros(2, 2), "bias": torch.ones(3)})
    assert model.net.weight.sum() == 8


def test_a_script_module() -> None:
    net = torch.jit.script(nn.Linear(2, 2))
    pyparam.load_(net, {"weight": torch.ones(2, 2), "bias": torch.ones(2)})
    assert net.weight.sum() == 4


def test_a_device_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="load_: no device 'nowhere'"):
        pyparam.load_(nn.Linear(2, 2), nn.Linear(2, 2), device="nowhere")


def sharing() -> nn.Module:
    """A matrix, its first row and its transpose, each a name of its own."""
    whole = torch.zeros(2, 3)
    return module(whole=whole, row=whole[0], turned=whole.t())


@pytest.mark.parametrize("assign", [False, True])
def test_other_values_where_layouts_overlap(assign: bool) -> None:
    values = torch.arange(6.0).reshape(2, 3)
    net = sharing()
    state = {"whole": values, "row": values[0].clone(), "turned": values.t().contiguous()}
    pyparam.load_(net, dict(state), assign=assign)
    assert net.whole.tolist() == values.tolist()
    assert net.turned.tolist() == values.t().tolist()
    for name in ("row", "turned"):
        before = [(id(t), t.data_ptr(), t.tolist()) for t in net.parameters()]
        with pytest.raises(
            ValueError, match="load_: '[a-z]+' shares memory in the model with '.*untie_ it first"
        ):
            pyparam.load_(net, {**state, name: state[name] + 1}, assign=assign)
        assert [(id(t), t.data_ptr(), t.tolist()) for t in net.parameters()] == before


def test_assigned_values_for_places_that_are_shared_and_tied() -> None:
    net = nn.Module()
    net.register_buffer("kept", torch.zeros(1, 2).expand(3, 2))
    net.register_buffer("passing", net.kept.detach(), persistent=False)
    before = net.kept
    with pytest.raises(ValueError, match="load_: .*would lose some of its own"):
        pyparam.load_(net, {"kept": torch.arange(6.0).reshape(3, 2)}, assign=True)
    assert net.kept is before
    assert net.kept.tolist() == [[0, 0]] * 3
    pyparam.load_(net, {"kept": torch.ones(1, 2).expand(3, 2)}, assign=True)
    assert net.passing.tolist() == [[1, 1]] * 3
