"""install(): the native traversal inside nn.Module, for everything that uses it."""

from __future__ import annotations

import copy
import inspect
import pickle
import types

import pytest
import reference_access as reference
import torch
from torch import nn

import pyparam

METHODS = [
    "named_parameters",
    "parameters",
    "named_buffers",
    "buffers",
    "named_modules",
    "modules",
    "state_dict",
    "load_state_dict",
]


@pytest.fixture(autouse=True)
def _restored():
    originals = {name: nn.Module.__dict__[name] for name in METHODS}
    yield
    pyparam.uninstall()
    for name, method in originals.items():
        assert nn.Module.__dict__[name] is method, name


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Sequential(nn.Linear(8, 1)))


def test_installed_methods_give_what_pytorchs_give_and_go_away_again() -> None:
    net = model()
    expected = {name: reference.listing(getattr(net, name)()) for name in METHODS[:-2]}
    signatures = {name: inspect.signature(getattr(nn.Module, name)) for name in METHODS}
    state = net.state_dict()
    with pyparam.installed():
        for name in METHODS[:-2]:
            assert reference.listing(getattr(net, name)()) == expected[name]
            assert type(getattr(net, name)()).__name__ in ("MemberIterator", "ModuleIterator")
        for name in METHODS:
            assert inspect.signature(getattr(nn.Module, name)) == signatures[name]
        assert list(net.state_dict()) == list(state)
        assert net.load_state_dict(state).missing_keys == []
        with pytest.warns(FutureWarning, match="Positional args are being deprecated"):
            net.state_dict({})
    assert type(net.parameters()) is types.GeneratorType


def test_installing_twice_is_harmless_and_scopes_nest() -> None:
    original = nn.Module.parameters
    pyparam.install()
    pyparam.install()
    ours = nn.Module.parameters
    with pyparam.installed():
        assert nn.Module.parameters is ours
    assert nn.Module.parameters is ours
    pyparam.uninstall()
    assert nn.Module.parameters is original
    pyparam.uninstall()


def test_super_reaches_the_native_method_and_overrides_count() -> None:
    class Prefixed(nn.Linear):
        def named_parameters(self, *args, **kwargs):
            for name, parameter in super().named_parameters(*args, **kwargs):
                yield "own." + name, parameter

        def state_dict(self, *args, **kwargs):
            return {"own." + k: v for k, v in super().state_dict(*args, **kwargs).items()}

    net = Prefixed(1, 1)
    with pyparam.installed():
        assert [name for name, _ in net.named_parameters()] == ["own.weight", "own.bias"]
        assert len(list(net.parameters())) == 2
        assert list(net.state_dict()) == ["own.weight", "own.bias"]
        assert [name for name, _ in pyparam.named_parameters(net)] == ["own.weight", "own.bias"]


def test_a_method_patched_over_ours_is_asked_and_left() -> None:
    pyparam.install()
    ours = nn.Module.named_parameters

    def patched(self, *args, **kwargs):
        return iter([("patched", None)])

    nn.Module.named_parameters = patched
    try:
        assert list(pyparam.named_parameters(model())) == [("patched", None)]
        pyparam.uninstall()
        assert nn.Module.named_parameters is patched
    finally:
        nn.Module.named_parameters = ours.__wrapped__


def test_copies_pickles_and_optimizers_work() -> None:
    with pyparam.installed():
        net = model()
        twin = pickle.loads(pickle.dumps(copy.deepcopy(net)))
        assert list(twin.state_dict()) == list(net.state_dict())
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
        net(torch.ones(3, 4)).sum().backward()
        optimizer.step()
        net.zero_grad()
        net.to(torch.float64).requires_grad_(False)
        assert all(p.dtype == torch.float64 for p in net.parameters())


class CountsInForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _, parameter in self.named_parameters():
            x = x + parameter.sum()
        for parameter in self.parameters():
            x = x * parameter.mean()
        return x


@pytest.mark.filterwarnings("ignore")
def test_a_forward_that_lists_parameters_still_compiles_in_one_graph() -> None:
    net, x = CountsInForward(), torch.ones(3)
    with pyparam.installed():
        expected = net(x)
        torch._dynamo.reset()
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), expected)
        assert [name for name, _ in compiled.named_parameters()] == [
            "_orig_mod.layer.weight",
            "_orig_mod.layer.bias",
        ]


@pytest.mark.filterwarnings("ignore")
def test_scripting_and_exporting_work() -> None:
    with pyparam.installed():
        scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2)))
        assert [name for name, _ in scripted.named_parameters()] == ["0.weight", "0.bias"]
        exported = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
        assert len(list(exported.parameters())) == 2
