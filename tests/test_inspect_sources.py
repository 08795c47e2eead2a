"""The Inspector over sources that are no plain modules: TorchScript, state dicts, tables, programs."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from benchmarks.models import net
from pyparam import ParamTable, inspect
from tests.reference_view import Zoo


@pytest.fixture
def zoo():
    return Zoo()


jit_is_deprecated = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def loaded(model):
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(model), file)
    file.seek(0)
    return torch.jit.load(file)


@jit_is_deprecated
def test_a_loaded_torchscript_module_is_indexed_as_the_model_was():
    script = loaded(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 1))))
    with pytest.raises(Exception):  # noqa: B017, PT011 (what PyTorch raises here differs by version)
        script[1]
    mirror = inspect(script)
    assert mirror[1][1].bias is script._modules["1"]._modules["1"].bias
    assert mirror[-1][-1].name == "1.1"
    assert mirror["1.1.bias"] is mirror[1][1].bias
    assert [part.name for part in mirror] == ["0", "1"]
    assert len(mirror) == 2
    assert mirror[1:][0].name == "1"
    assert mirror[0].module is script._modules["0"]
    assert {n for n, _ in mirror.named_parameters()} == {"0.weight", "0.bias", "1.1.weight", "1.1.bias"}
    with pytest.raises(IndexError, match=r"has no \[2\]: its entries are numbered 0 to 1"):
        mirror[2]
    with pytest.raises(KeyError, match="close to it: '1.1.bias'"):
        mirror["1.1.bais"]


@jit_is_deprecated
def test_traced_scripted_frozen_and_raw_torchscript():
    model = net().eval()
    traced = torch.jit.trace(model, torch.rand(2, 4))
    assert torch.equal(inspect(traced)[0][1][0].bias, model[0][1][0].bias)
    scripted = torch.jit.script(model[0][1])
    assert inspect(scripted)[0].bias is scripted._modules["0"].bias
    assert torch.equal(inspect(scripted._c)[0].bias, scripted._modules["0"].bias)
    frozen = torch.jit.freeze(traced)
    assert list(inspect(frozen).named_parameters()) == []
    assert "Sequential" in repr(inspect(frozen))


def check_tree(mirror, model):
    """A source without modules mirrors the state of a nested network."""
    assert torch.equal(mirror[0][1][0].bias, model[0][1][0].bias)
    assert mirror[0][1].name == "0.block 1"
    assert torch.equal(mirror["0.block 1.0.bias"], model[0][1][0].bias)
    assert mirror[0]["block 1"][0].bias is mirror[0][1][0].bias
    assert torch.equal(mirror[-1].weight, model[1].weight)
    assert mirror[0][1].module is None
    assert [n for n, _ in mirror.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert [n for n, _ in mirror[0].named_parameters()] == [n for n, _ in model[0].named_parameters()]
    assert mirror[0][1:3][1].name == "0.block 2"
    assert mirror.state_dict().keys() == model.state_dict().keys()
    assert dict(mirror.named_modules())["0.block 1.0"].bias is mirror[0][1][0].bias
    assert mirror[0][1][2].parent.parent.name == "0"
    assert "4 x" in repr(mirror)
    with pytest.raises(IndexError, match=r"'0.block 1' has no \[1\]: its entries are numbered 0, 2"):
        mirror[0][1][1]
    with pytest.raises(AttributeError, match="close to it: 'bias'"):
        _ = mirror[1].bais


def test_a_state_dict():
    model = net()
    check_tree(inspect(model.state_dict()), model)


def test_pairs_asked_once():
    model = net()
    check_tree(inspect((name, tensor) for name, tensor in model.named_parameters()), model)
    assert inspect(model.named_parameters())[1].bias is model[1].bias


def test_a_table():
    model = net()
    names, tensors = zip(*model.named_parameters(), strict=True)
    check_tree(inspect(ParamTable(names, tensors)), model)


def test_lists_in_a_state_dict(zoo):
    mirror = inspect(zoo.state_dict())
    assert torch.equal(mirror.scales[1], zoo.scales[1])
    assert torch.equal(mirror.gains["b"], zoo.gains["b"])
    assert len(mirror.scales) == 2
    assert [t.shape for t in mirror.scales] == [t.shape for t in zoo.scales]
    assert list(mirror.gains) == ["a", "b"]
    assert [layer.name for layer in mirror.layers] == [f"layers.{i}" for i in range(4)]
    assert mirror.layers[1:3][0].name == "layers.1"
    assert mirror.scales[1:][0] is mirror.scales[1]
    assert mirror.stack[2].weight.shape == (2, 3)
    assert "weight" in mirror.stack[2]


def test_numbers_in_any_order():
    mirror = inspect({f"layers.{i}.w": torch.full((1,), i) for i in (10, 2, 0)})
    assert mirror.layers[10].w.item() == 10
    assert mirror.layers[-1].name == "layers.10"
    assert [layer.name for layer in mirror.layers] == ["layers.0", "layers.2", "layers.10"]
    named = inspect({f"block {i}.w": torch.full((1,), i) for i in (10, 2, 0)})
    assert [named[i].w.item() for i in range(3)] == [0, 2, 10]


def test_precedence_of_names():
    tensor, inner = torch.zeros(1), torch.ones(1)
    mirror = inspect({"a": tensor, "a.b": inner})
    assert mirror["a"] is tensor
    assert mirror["a.b"] is inner
    assert mirror[""] is mirror


def test_an_exported_program_tells_buffers():
    model = nn.Sequential(net(), nn.BatchNorm1d(1)).eval()
    mirror = inspect(torch.export.export(model, (torch.rand(2, 4),)))
    assert torch.equal(mirror[0][0][1][0].bias, model[0][0][1][0].bias)
    assert [n for n, _ in mirror.named_buffers()] == [n for n, _ in model.named_buffers()]
    assert len(list(mirror.parameters())) == 20
    assert [n for n, _ in mirror[1].named_buffers(recurse=False)] == [n for n, _ in model[1].named_buffers()]
