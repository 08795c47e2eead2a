"""untie_: a parameter of one's own again."""

import warnings

import pytest
import reference_share as reference
import torch
from tied_models import linears, names, stepped
from torch import nn

import pyparam

# ---------------------------------------------------------------- untie_


def test_untie_gives_an_own_copy():
    net = linears(2)
    pyparam.tie_(net, "0.weight", "1.weight")
    net(torch.ones(1, 8)).sum().backward()
    old = net[0].weight
    new = pyparam.untie_(net, "1.weight")
    assert net[1].weight is new
    assert net[0].weight is old
    assert names(net) == []
    assert torch.equal(new, old)
    assert (type(new), new.requires_grad, new.dtype, new.stride()) == (
        nn.Parameter,
        True,
        old.dtype,
        old.stride(),
    )
    assert new.grad is None
    assert old.grad is not None


def test_untie_keeps_attributes_strides_and_requires_grad():
    net = linears(2)
    net[0].weight = nn.Parameter(torch.randn(8, 8).t(), requires_grad=False)
    net[0].weight.mark = "kept"
    pyparam.tie_(net, "0.weight", "1.weight")
    new = pyparam.untie_(net, "0.weight")
    assert (new.stride(), new.requires_grad, new.mark) == ((1, 8), False, "kept")


def test_untie_a_slice_keeps_the_object():
    buffer = torch.arange(10.0)
    model = nn.Module()
    model.whole, model.part = nn.Parameter(buffer), nn.Parameter(buffer[2:4])
    part = model.part
    assert pyparam.untie_(model, "part") is part
    assert names(model) == []
    assert part.tolist() == [2, 3]
    assert part.untyped_storage().nbytes() == 8


def test_untie_a_module_that_has_two_names():
    net = reference.sequential()
    pyparam.untie_(net, "4.weight")
    assert names(net) == [("2.bias", "4.bias")]
    assert net[2] is not net[4]
    assert torch.equal(net[2].weight, net[4].weight)
    net(torch.ones(1, 4)).sum().backward()
    assert not torch.equal(net[2].weight.grad, net[4].weight.grad)
    assert list(net.state_dict()) == list(reference.sequential().state_dict())


def test_untie_below_a_module_that_has_two_names():
    block = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net = nn.ModuleDict({"a": block, "b": block})
    pyparam.untie_(net, "b.1.weight")
    assert names(net) == [("a.0.weight", "b.0.weight"), ("a.0.bias", "b.0.bias"), ("a.1.bias", "b.1.bias")]
    assert net["a"] is block
    assert net["b"][0] is block[0]


def test_untie_a_shared_recurrent_net():
    layer = nn.LSTM(3, 3)
    net = nn.ModuleDict({"a": layer, "b": layer})
    pyparam.untie_(net, "b.weight_ih_l0")
    assert net["a"]._flat_weights[0] is net["a"].weight_ih_l0
    assert net["b"]._flat_weights[0] is net["b"].weight_ih_l0
    assert net["a"].weight_ih_l0 is not net["b"].weight_ih_l0


def test_untie_a_buffer():
    model = nn.Module()
    for name in "ab":
        model.register_buffer(name, torch.ones(3))
    pyparam.tie_(model, "a", "b")
    pyparam.untie_(model, "b")
    assert model.a is not model.b
    assert model.b.tolist() == [1, 1, 1]


def test_untie_what_is_not_tied():
    net = linears()
    weight = net[0].weight
    assert pyparam.untie_(net, "0.weight") is weight


def test_untie_copies_the_optimizers_state():
    net = linears(2)
    optimizer = torch.optim.Adam(net.parameters())
    pyparam.tie_(net, "0.weight", "1.weight", optimizer=optimizer)
    stepped(net, optimizer)
    new = pyparam.untie_(net, "1.weight", optimizer=optimizer)
    old = net[0].weight
    assert torch.equal(optimizer.state[new]["exp_avg"], optimizer.state[old]["exp_avg"])
    assert optimizer.state[new]["exp_avg"] is not optimizer.state[old]["exp_avg"]
    stepped(net, optimizer)
    assert not torch.equal(new, old)


def test_untie_names_what_is_missing():
    with pytest.raises(
        AttributeError, match=r"untie_: the model has no parameter '0\.wight'; did you mean '0\.weight'"
    ):
        pyparam.untie_(linears(), "0.wight")


def test_a_scripted_module_with_two_names_is_not_split():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = torch.jit.script(nn.Linear(2, 2))
    net = nn.Sequential(layer, layer)
    with pytest.raises(
        TypeError, match=r"untie_: '1\.weight' belongs to a TorchScript module that has several names"
    ):
        pyparam.untie_(net, "1.weight")
    assert len(names(net)) == 2
