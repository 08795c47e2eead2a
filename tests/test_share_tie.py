"""tie_, untie_, retie_ and keep_ties: making ties, dropping them, and keeping them through what breaks
them."""

import copy
import re
import warnings

import pytest
import reference_share as reference
import torch
from tied_models import linears, names
from torch import nn
from torch.nn.utils import parametrize

import pyparam

# ---------------------------------------------------------------- tie_


def test_tied_layers_stay_equal_and_gradients_add_up():
    net = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)
    )
    pyparam.tie_(net, "2.weight", "4.weight")
    apart = copy.deepcopy(net)
    pyparam.untie_(apart, "4.weight")
    x = torch.randn(3, 4)
    net(x).sum().backward()
    apart(x).sum().backward()
    torch.testing.assert_close(net[2].weight.grad, apart[2].weight.grad + apart[4].weight.grad)
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert torch.equal(net[2].weight, net[4].weight)
    with torch.no_grad():
        net[2].weight[0, 0] = 100
    assert net[4].weight[0, 0] == 100


def test_the_classic_example():
    net = reference.sequential()
    before = net[2].weight.detach().clone()
    net(torch.randn(3, 4)).sum().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert torch.equal(net[2].weight, net[4].weight)
    assert not torch.equal(net[2].weight, before)


def test_tie_gives_the_sources_object():
    net = linears()
    source = net[0].weight
    assert pyparam.tie_(net, "0.weight", "2.weight", "3.weight") is source
    assert net[2].weight is source
    assert net[3].weight is source
    assert names(net) == [("0.weight", "2.weight", "3.weight")]
    assert [name for name, _ in net.named_parameters()] == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "2.bias",
        "3.bias",
    ]


def test_tying_what_is_tied_changes_nothing():
    net = reference.sequential()
    pyparam.tie_(net, "2.weight", "4.weight")
    assert names(net) == [("2.weight", "4.weight"), ("2.bias", "4.bias")]


def test_a_module_with_two_names_is_one_place():
    net = reference.sequential()
    extra = nn.Sequential(net, nn.Linear(8, 8))
    pyparam.tie_(extra, "1.weight", "0.4.weight")
    assert names(extra)[0] == ("0.2.weight", "0.4.weight", "1.weight")


def test_buffers_tie_to_buffers():
    model = nn.Module()
    for name in "ab":
        model.register_buffer(name, torch.zeros(3), persistent=name == "a")
    pyparam.tie_(model, "a", "b")
    assert model.a is model.b
    assert list(model.state_dict()) == ["a"]


def test_tied_weights_of_a_recurrent_net_are_used():
    model = nn.ModuleDict({"a": nn.LSTM(3, 3), "b": nn.LSTM(3, 3)})
    pyparam.tie_(model, *("a.weight_ih_l0", "b.weight_ih_l0"))
    assert model["b"]._flat_weights[0] is model["a"].weight_ih_l0
    model["b"](torch.zeros(1, 3))[0].sum().backward()
    assert model["a"].weight_ih_l0.grad is not None


def test_entries_of_lists_and_dicts():
    model = nn.ModuleDict(
        {"l": nn.ParameterList([torch.zeros(2), torch.ones(2)]), "d": nn.ParameterDict({"k": torch.zeros(2)})}
    )
    pyparam.tie_(model, "l.1", "l.0", "d.k")
    assert model["l"][0] is model["d"]["k"]
    assert model["l"][0].tolist() == [1, 1]


def test_a_scripted_model_can_be_tied():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.jit.script(linears(2))
    pyparam.tie_(net, "0.weight", "1.weight")
    assert names(net) == [("0.weight", "1.weight")]
    with torch.no_grad():
        for parameter in (net[0].weight, net[0].bias, net[1].bias):
            parameter.fill_(0)
    assert net(torch.ones(1, 8)).abs().sum() == 0


def test_the_original_of_a_parametrization_can_be_tied():
    net = linears(2)
    torch.nn.utils.parametrizations.weight_norm(net[0])
    torch.nn.utils.parametrizations.weight_norm(net[1])
    first, second = "0.parametrizations.weight.original1", "1.parametrizations.weight.original1"
    pyparam.tie_(net, first, second)
    assert names(net) == [(first, second)]


def test_meta_models_can_be_tied():
    net = linears().to("meta")
    pyparam.tie_(net, "0.weight", "1.weight")
    assert names(net) == [("0.weight", "1.weight")]


class Doubled(nn.Module):
    def forward(self, x):
        return x * 2


def broken(kind):
    net = linears(2)
    net.register_buffer("buffer", torch.zeros(8, 8))
    net.register_parameter("absent", None)
    net.plain = torch.zeros(8, 8)
    if kind == "parametrized":
        parametrize.register_parametrization(net[1], "weight", Doubled())
    if kind == "lazy":
        net.append(nn.LazyLinear(8))
    if kind == "dtype":
        net[1].double()
    if kind == "device":
        net[0].to("meta")
    if kind == "layout":
        net[1].weight = nn.Parameter(torch.eye(8).to_sparse())
    return net


@pytest.mark.parametrize(
    ("kind", "target", "error", "words"),
    [
        ("", "1.bias", ValueError, "tie_: '1.bias' has shape [8], expected [8, 8], the shape of '0.weight'"),
        ("dtype", "1.weight", ValueError, "tie_: '1.weight' has dtype torch.float64, expected torch.float32"),
        ("device", "1.weight", ValueError, "tie_: '1.weight' has device cpu, expected meta"),
        (
            "layout",
            "1.weight",
            ValueError,
            "tie_: '1.weight' has layout torch.sparse_coo, expected torch.strided",
        ),
        ("", "0.weight", ValueError, "tie_: '0.weight' cannot be tied to itself"),
        ("", "buffer", TypeError, "tie_: '0.weight' is a parameter and 'buffer' is a buffer"),
        (
            "",
            "1.wieght",
            AttributeError,
            "tie_: the model has no parameter '1.wieght'; did you mean '1.weight'?",
        ),
        ("", "7.weight", AttributeError, "tie_: the model has no '7.weight': the model has no submodule '7'"),
        ("", "1.x.weight", AttributeError, "the model has no '1.x.weight': module '1' has no submodule 'x'"),
        ("", "1", AttributeError, "tie_: '1' is a module; name its parameters one by one"),
        ("", "absent", AttributeError, "tie_: 'absent' is None; there is nothing to share"),
        (
            "",
            "plain",
            AttributeError,
            "tie_: 'plain' is a plain tensor attribute, neither a parameter nor a buffer",
        ),
        ("", 3, TypeError, "tie_: expected the name of a parameter, got int"),
        (
            "parametrized",
            "1.weight",
            AttributeError,
            "'1.weight' is computed by a parametrization; name the parameter",
        ),
        ("parametrized", "1.weight", AttributeError, "'1.parametrizations.weight.original'"),
        ("lazy", "2.weight", ValueError, "tie_: '2.weight' is not initialised yet and has no shape"),
    ],
)
def test_what_cannot_be_tied(kind, target, error, words):
    net = broken(kind)
    before = dict(net.named_parameters())
    with pytest.raises(error, match=re.escape(words)):
        # A good target first: nothing may be half-written.
        pyparam.tie_(net, "0.weight", *([] if kind else ["1.weight"]), target)
    after = dict(net.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


def test_a_buffer_cannot_take_a_parameter():
    with pytest.raises(TypeError, match=r"'buffer' is a buffer and '0\.weight' is a parameter"):
        pyparam.tie_(broken(""), "buffer", "0.weight")


def test_no_target():
    with pytest.raises(ValueError, match="tie_: no target: give the names"):
        pyparam.tie_(linears(), "0.weight")


def test_not_a_model():
    with pytest.raises(
        TypeError, match=r"tie_: expected an nn\.Module or a mapping that can be written, got list"
    ):
        pyparam.tie_([], "a", "b")


def test_not_an_optimizer():
    net = linears()
    for call in (
        lambda: pyparam.tie_(net, "0.weight", "1.weight", optimizer=3),
        lambda: pyparam.untie_(net, "0.weight", optimizer=3),
        lambda: pyparam.retie_(net, [], optimizer=3),
    ):
        with pytest.raises(TypeError, match=r"tie_: optimizer must be a torch\.optim\.Optimizer, got int"):
            call()
    assert names(net) == []
