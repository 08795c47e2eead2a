"""load_ against nn.Module.load_state_dict, and what it refuses before anything is written."""

import copy
import re

import pytest
import safetensors.torch
import torch
from torch import nn

import pyparam


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Sequential(nn.Linear(7, 3, bias=False)))


def same(a: nn.Module, b: nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


@pytest.fixture(params=["safetensors", "pickled", "state dict", "model", "checkpoint"])
def source(request, tmp_path):
    made = model(1)
    if request.param == "pickled":
        torch.save(made.state_dict(), tmp_path / "m.pt")
        return tmp_path / "m.pt"
    if request.param in ("safetensors", "checkpoint"):
        path = tmp_path / "m.safetensors"
        safetensors.torch.save_file(made.state_dict(), path)
        return path if request.param == "safetensors" else pyparam.open(path)
    return made if request.param == "model" else made.state_dict()


def test_any_source(source):
    net = model()
    held = list(net.parameters())
    assert pyparam.load_(net, source) == ([], [])
    assert same(net, model(1))
    assert all(a is b for a, b in zip(net.parameters(), held, strict=True))


def test_assigned(source):
    net = model()
    assert pyparam.load_(net, source, assign=True) == ([], [])
    assert same(net, model(1))


def test_meta_model_gets_memory(source):
    with torch.device("meta"):
        net = model()
    net[2][0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"load_: '0.weight' is on the meta device and can take no values"):
        pyparam.load_(nn.ModuleDict({"0": net[0]}), {"0.weight": torch.ones(7, 5), "0.bias": torch.ones(7)})
    pyparam.load_(net, source, device="cpu")
    assert same(net, model(1))
    assert [p.requires_grad for p in net.parameters()] == [True, True, True, True, False]
    net(torch.zeros(2, 5)).sum().backward()


def test_larger_than_a_batch_and_converted(tmp_path, monkeypatch):
    import pyparam._load.stream as stream

    monkeypatch.setattr(stream, "_BATCH_BYTES", 100)
    path = tmp_path / "m.safetensors"
    halves = {"weight": torch.randn(60, 33).bfloat16(), "bias": torch.randn(60).bfloat16()}
    safetensors.torch.save_file(halves, path)
    net = nn.Linear(33, 60)
    pyparam.load_(net, path)
    assert torch.equal(net.weight, halves["weight"].float())
    assert torch.equal(net.bias, halves["bias"].float())


def test_renamed_and_names_that_one_side_has():
    net = model()
    given = {f"module.{name}": value for name, value in model(1).state_dict().items()}
    pyparam.load_(net, given, rename="module.")
    assert same(net, model(1))
    net, plain = nn.Linear(2, 2), {"weight": torch.ones(2, 2), "more": torch.ones(1)}
    before = copy.deepcopy(net)
    with pytest.raises(ValueError, match="load_: the source lacks 'bias'"):
        pyparam.load_(net, plain)
    assert same(net, before)
    assert pyparam.load_(net, plain, strict=False) == (["bias"], ["more"])
    assert torch.equal(net.weight, torch.ones(2, 2))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.ones(3), "load_: 'bias' has shape [3] in the source, expected [2]"),
        (
            torch.ones(2, dtype=torch.float64),
            "load_: 'bias' is torch.float64 in the source and torch.float32 in the model, which would lose "
            "values; use cast=True",
        ),
        (torch.ones(2, device="meta"), "load_: 'bias' is on the meta device in the source and has no values"),
    ],
)
def test_refused_before_anything_is_written(given, words):
    net = nn.Linear(2, 2)
    before = copy.deepcopy(net)
    with pytest.raises(ValueError, match=re.escape(words)):
        pyparam.load_(net, {"weight": torch.zeros(2, 2), "bias": given})
    assert same(net, before)


def test_cast():
    net = nn.Linear(2, 2).bfloat16()
    values = {"weight": torch.randn(2, 2), "bias": torch.randn(2)}
    pyparam.load_(net, values, cast=True)
    assert torch.equal(net.weight, values["weight"].bfloat16())


def test_memory_of_the_model_itself():
    net = nn.Linear(2, 2, bias=False)
    before = net.weight.detach().clone()
    with pytest.raises(ValueError, match="load_: the value of 'weight' lies in the model's own memory"):
        pyparam.load_(net, {"weight": net.weight.detach().t()})
    assert torch.equal(net.weight, before)
    pyparam.load_(net, net.state_dict())
    assert torch.equal(net.weight, before)


def test_a_hook_that_raises_leaves_the_model():
    net = model()
    net[2][0].register_load_state_dict_post_hook(lambda *_: 1 / 0)
    before = model()
    with pytest.raises(ZeroDivisionError):
        pyparam.load_(net, model(1))
    assert same(net, before)


def test_hooks_rename_as_in_pytorch():
    class Old(nn.Linear):
        def _load_from_state_dict(self, state, prefix, *more):
            if f"{prefix}w" in state:
                state[f"{prefix}weight"] = state.pop(f"{prefix}w")
            super()._load_from_state_dict(state, prefix, *more)

    net = Old(2, 2, bias=False)
    assert pyparam.load_(net, {"w": torch.ones(2, 2)}) == ([], [])
    assert torch.equal(net.weight, torch.ones(2, 2))
    with pytest.raises(ValueError, match="load_: the model lacks 'x'"):
        pyparam.load_(net, {"w": torch.zeros(2, 2), "x": torch.zeros(1)})
    assert torch.equal(net.weight, torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"load_: (.|\n)*size mismatch for weight"):
        pyparam.load_(net, {"w": torch.zeros(3, 2)})


def test_lazy_and_extra_state():
    class Extra(nn.LazyLinear):
        told = None

        def get_extra_state(self):
            return self.told

        def set_extra_state(self, state):
            self.told = state

    net = Extra(3)
    values = {"weight": torch.randn(3, 2), "bias": torch.randn(3), "_extra_state": {"a": 1}}
    pyparam.load_(net, values)
    assert net.told == {"a": 1}
    assert torch.equal(net.weight, values["weight"])


def test_ties_of_the_model():
    net = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    net["b"].weight = net["a"].weight
    values = {"a.weight": torch.ones(3, 3), "a.bias": torch.ones(3), "b.bias": torch.ones(3)}
    for assign in (False, True):
        assert pyparam.load_(net, values, assign=assign) == ([], [])
        assert net["a"].weight is net["b"].weight
        assert torch.equal(net["b"].weight, torch.ones(3, 3))


def test_no_module():
    with pytest.raises(TypeError, match=r"load_: expected an nn\.Module, got dict"):
        pyparam.load_({}, {})


@pytest.mark.parametrize("rename", [None, "model."])
@pytest.mark.parametrize("strict", [True, False])
def test_what_is_no_tensor_under_the_name_of_one(rename, strict):
    net = nn.Linear(2, 2)
    before = net.weight.detach().clone()
    prefix = rename or ""
    given = {f"{prefix}weight": torch.ones(2, 2), f"{prefix}bias": [0.0, 0.0]}
    with pytest.raises(TypeError, match=r"load_: 'bias' is a list in the source, expected a tensor"):
        pyparam.load_(net, given, rename=rename, strict=strict)
    state = net.state_dict()
    state["bias"] = "text"
    with pytest.raises(TypeError, match=r"load_: 'bias' is a str in the source, expected a tensor"):
        pyparam.load_(net, state, strict=strict)
    tied = nn.Sequential(net, net)
    state = tied.state_dict()
    state["1.bias"] = 3
    with pytest.raises(TypeError, match=r"load_: '1\.bias' is an int in the source, expected a tensor"):
        pyparam.load_(tied, state, strict=strict)
    assert torch.equal(net.weight, before)


def test_assigned_values_of_two_dtypes_for_one_tensor():
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    state = tied.state_dict()
    state["1.weight"] = state["1.weight"].double()
    with pytest.raises(
        ValueError, match=r"load_: '1\.weight' has dtype torch\.float64, expected torch\.float32"
    ):
        pyparam.load_(tied, state, assign=True)
    assert tied[1].weight is tied[0].weight
    assert tied[0].weight.dtype == torch.float32
