"""TorchScript modules, walked through libtorch: names, order, duplicates, identity as PyTorch has them."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from reference_sources import assert_same_entries, installed, listed
from torch import nn

from pyparam._sources import table_of

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Mixed(nn.Module):
    """Shared modules, tied parameters, missing ones, every kind of buffer, and a plain tensor attribute."""

    def __init__(self):
        super().__init__()
        self.register_buffer("first", torch.zeros(2), persistent=False)
        self.a = nn.Linear(3, 3)
        self.shared = self.a
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.a.weight
        self.norm = nn.BatchNorm1d(3)
        self.plain = torch.ones(5)
        self.register_parameter("none", None)
        self.register_buffer("no_buffer", None)
        self.layers = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Sequential(nn.Linear(3, 3), nn.ReLU())])
        self.last = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x):
        x = self.norm(self.tied(self.shared(self.a(x)))) + self.plain.sum() + self.first.sum() + self.last
        for layer in self.layers:
            x = layer(x)
        return x


def script(tmp_path):
    return torch.jit.script(Mixed())


def trace(tmp_path):
    return torch.jit.trace(Mixed().eval(), torch.randn(2, 3))


def load(tmp_path):
    torch.jit.save(torch.jit.script(Mixed()), tmp_path / "m.pt")
    return torch.jit.load(tmp_path / "m.pt")


MAKERS = [script, trace, load]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("remove_duplicate", [True, False])
@pytest.mark.parametrize("buffers", [True, False])
def test_lists_what_pytorch_lists(tmp_path, make, remove_duplicate, buffers):
    module = make(tmp_path)
    table = table_of(module, buffers=buffers, remove_duplicate=remove_duplicate)
    expected = listed(module, buffers=buffers, remove_duplicate=remove_duplicate)
    assert len(expected) > 7
    assert_same_entries(table, expected)


def test_libtorch_itself_would_repeat_tied_parameters(tmp_path):
    names = table_of(script(tmp_path)).names
    assert "a.weight" in names
    assert "shared.weight" not in names
    assert "tied.weight" not in names
    assert "tied.bias" in names


@pytest.mark.parametrize("make", MAKERS)
def test_tensors_are_the_objects_the_module_gives(tmp_path, make):
    module = make(tmp_path)
    table = table_of(module)
    assert table["tied.bias"] is module.tied.bias
    table["tied.bias"].data.fill_(3)
    assert module.tied.bias.tolist() == [3, 3, 3]


def test_loaded_parameters_are_plain_tensors_as_in_pytorch(tmp_path):
    table = table_of(load(tmp_path))
    assert all(type(tensor) is torch.Tensor for tensor in table.tensors)
    assert table["a.weight"].requires_grad
    assert not table["last"].requires_grad


def test_scripted_parameters_are_parameters(tmp_path):
    assert all(type(tensor) is nn.Parameter for tensor in table_of(script(tmp_path)).tensors)


def test_a_frozen_module_has_none():
    frozen = torch.jit.freeze(torch.jit.script(Mixed().eval()))
    assert list(frozen.named_parameters()) == []
    assert len(table_of(frozen, buffers=True)) == 0


def test_freezing_may_spare_attributes():
    frozen = torch.jit.freeze(torch.jit.script(Mixed().eval()), preserved_attrs=["last"])
    assert_same_entries(table_of(frozen), frozen.named_parameters())


def test_owners_are_the_script_modules(tmp_path):
    module = script(tmp_path)
    table = table_of(module)
    owners = dict(zip(table.names, table.owners, strict=True))
    assert owners["last"] is module
    assert owners["a.weight"] is module.a
    inner = dict(module.named_modules())["layers.1.0"]
    assert owners["layers.1.0.bias"] is inner
    assert table.select("layers.1.*").owners == [inner, inner]
    assert table.attributes[-1] == "bias"


def test_a_table_does_not_keep_the_module(tmp_path):
    module = script(tmp_path)
    table = table_of(module)
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None
    assert table.owners == [None] * len(table)
    assert table["last"].tolist() == [0]


def test_a_bare_script_object_is_a_source_too(tmp_path):
    module = script(tmp_path)
    assert table_of(module._c).names == table_of(module).names


class Pair(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.left = inner
        self.right = inner

    def forward(self, x):
        return self.left(x) + self.right(x)


def test_sharing_at_every_level_costs_one_visit_a_module():
    inner: nn.Module = nn.Linear(1, 1)
    for _ in range(8):
        inner = Pair(inner)
    module = torch.jit.script(inner)
    assert table_of(module).names == ["left." * 8 + "weight", "left." * 8 + "bias"]
    assert len(table_of(module, remove_duplicate=False)) == 2 * 2**8
    assert_same_entries(
        table_of(module, remove_duplicate=False), module.named_parameters(remove_duplicate=False)
    )


def test_a_class_with_its_own_traversal_is_asked():
    class Hidden(torch.jit.ScriptModule):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.bias = nn.Parameter(torch.zeros(1))

        def named_parameters(self, *args, **kwargs):
            yield "weight", self.weight

    assert table_of(Hidden()).names == ["weight"]


def test_silero():
    path = installed("silero_vad") / "data" / "silero_vad.jit"
    module = torch.jit.load(path)
    assert_same_entries(table_of(module), module.named_parameters())
    assert_same_entries(table_of(module, buffers=True), listed(module, buffers=True))
    assert len(table_of(module)) == 28
