"""The access functions against nn.Module's own methods: the same items, the same order, the same errors."""

from __future__ import annotations

import copy
import operator
import resource
import sys
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import reference_access as reference
import torch
from access_models import demo, same, same_state
from hypothesis import given, settings
from torch import nn

import pyparam
from pyparam._cli.demo import net as demo_net


@settings(max_examples=150, deadline=None)
@given(reference.models())
def test_random_models_give_what_pytorch_gives(model: nn.Module) -> None:
    same(model)
    same_state(model, keep_vars=True)
    same_state(model, prefix="x")


def scripted() -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


@pytest.mark.parametrize(
    "make",
    [
        demo_net,
        lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
        lambda: nn.Sequential(OrderedDict(première=nn.Linear(2, 2), 名前=nn.BatchNorm1d(2))),
        lambda: nn.LSTM(4, 4, 2),
        lambda: nn.Linear(2, 2),
        nn.Sequential,
        lambda: nn.ParameterList([torch.zeros(2), torch.ones(2)]),
        lambda: nn.ParameterDict({"a": torch.zeros(2)}),
        scripted,
        lambda: nn.LazyLinear(3),
    ],
)
def test_modules_of_pytorch(make) -> None:
    model = make()
    if isinstance(model, torch.jit.ScriptModule):
        # Each access makes new wrappers of submodules, so identity is the tensors' alone.
        assert [n for n, _ in pyparam.named_modules(model)] == [n for n, _ in model.named_modules()]
        assert reference.listing(pyparam.named_parameters(model)) == reference.listing(
            model.named_parameters()
        )
        same_state(model)
    elif any(torch.nn.parameter.is_lazy(p) for p in model.parameters()):
        assert reference.listing(list(pyparam.named_parameters(model))) == reference.listing(
            model.named_parameters()
        )
        assert isinstance(next(pyparam.parameters(model)), nn.UninitializedParameter)
        assert list(pyparam.state_dict(model)) == list(model.state_dict())
    else:
        same(model)


def test_modules_that_share_their_dicts() -> None:
    inner = demo()
    shallow = copy.copy(inner)
    assert shallow._modules is inner._modules
    same(nn.Sequential(inner, shallow))
    layer = nn.Linear(1, 1)
    same(nn.Sequential(layer, copy.copy(layer)))
    twin = nn.Linear(1, 1)
    twin.__dict__ = layer.__dict__
    same(nn.Sequential(layer, twin))
    same(nn.Sequential(nn.Sequential(inner), nn.Sequential(shallow), inner))


def test_two_parameters_over_one_storage_are_both_listed() -> None:
    model = nn.Module()
    model.a = nn.Parameter(torch.zeros(4))
    model.b = nn.Parameter(model.a.data)
    assert [name for name, _ in pyparam.named_parameters(model)] == ["a", "b"]
    assert pyparam.walk(model).names == ["a", "b"]


def test_one_parameter_under_two_names_is_listed_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    assert "1.weight" not in dict(pyparam.named_parameters(model))
    assert "1.weight" in dict(pyparam.named_parameters(model, remove_duplicate=False))
    assert "1.weight" in pyparam.state_dict(model)
    assert pyparam.walk(model, remove_duplicate=False).names == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_a_cycle_stops_or_is_an_error_that_says_where() -> None:
    model = nn.Module()
    model.w = nn.Parameter(torch.zeros(1))
    model.child = nn.Module()
    model.child.back = model
    assert [name for name, _ in pyparam.named_modules(model)] == ["", "child"]
    assert [name for name, _ in list(pyparam.named_parameters(model))] == ["w"]
    for call in (
        lambda: list(pyparam.named_modules(model, remove_duplicate=False)),
        lambda: sum(1 for _ in pyparam.named_parameters(model, remove_duplicate=False)),
        lambda: pyparam.walk(model, remove_duplicate=False),
    ):
        with pytest.raises(ValueError, match=r"the module at 'child.back' is its own ancestor"):
            call()
    with pytest.raises(
        ValueError, match=r"state_dict: the module with the prefix 'child.back.' is its own ancestor"
    ):
        pyparam.state_dict(model)


@pytest.mark.parametrize("prefix", ["", "x", "eight by", "é."])
def test_keys_of_state_dicts_hash_as_python_hashes_them(prefix: str) -> None:
    """They bring their hash, each made from that of the path above: also behind a path that was longer."""
    model: nn.Module = nn.Linear(1, 1)
    for i in range(20):
        level = nn.Module()
        level._modules = {f"{'long' * i}": model, "é" * (i % 5): nn.Linear(1, 1), "b": nn.Linear(1, 1)}
        level._parameters["p" * i] = nn.Parameter(torch.ones(1))
        model = level
    for own in (False, True):
        if own:  # which takes the way that is not in bulk
            model._register_state_dict_hook(lambda *_: None)
        state = pyparam.state_dict(model, prefix=prefix)
        for keys in (list(state), list(state._metadata)):
            assert len(keys) == len(set(keys)) > 50
            anew = [key.encode().decode() for key in keys]
            assert [hash(key) for key in keys] == [hash(key) for key in anew]
        assert list(state) == list(model.state_dict(prefix=prefix))


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its memory")
def test_a_table_stores_the_path_of_modules_without_members_once() -> None:
    """500 levels with keys of 400 bytes: so many paths take 50 MB."""
    model: nn.Module = nn.Linear(1, 1)
    for i in range(500):
        level = nn.Module()
        level._modules = {f"{i:.>400}": model, "leaf": nn.Linear(1, 1, bias=False)}
        model = level
    expected = [name for name, _ in model.named_parameters()]

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident()
    table = pyparam.walk(model)
    assert resident() - before < 10_000_000
    assert table.names == expected
    assert table._native.owner_names == [name.rpartition(".")[0] for name in expected]
    assert table.attributes == [name.rpartition(".")[2] for name in expected]


@pytest.mark.parametrize(
    "keys", [["", "", "a"], ["a", "", "b"], ["a.b", "c"], [".", "a"], ["\u00e9", "\ud800", "a"]]
)
def test_names_through_modules_whose_names_no_method_registers(keys: list[str]) -> None:
    model = innermost = nn.Module()
    for key in keys:
        innermost._parameters = {"w": nn.Parameter(torch.zeros(1)), key: nn.Parameter(torch.zeros(1))}
        innermost._modules = {"empty": nn.ReLU(), key: nn.Module(), "leaf": nn.Linear(1, 1)}
        innermost = innermost._modules[key]
    innermost._modules = {"last": nn.Linear(1, 1), "shared": model._modules["leaf"]}
    for remove_duplicate in (True, False):
        expected = reference.listing(model.named_parameters(remove_duplicate=remove_duplicate))
        table = pyparam.walk(model, remove_duplicate=remove_duplicate)
        assert reference.listing(table) == expected
        # One by one, by which names are put together otherwise.
        for order in (slice(None, None, -1), slice(None, None, 3)):
            assert reference.listing(table[order]) == expected[order]
        assert [
            f"{owner}.{attribute}".lstrip(".")
            for owner, attribute in zip(table._native.owner_names, table.attributes, strict=True)
        ] == [name.lstrip(".") for name, _ in expected]


def test_a_chain_of_100_000_modules() -> None:
    model: nn.Module = nn.Linear(1, 1)
    for _ in range(100_000):
        model = nn.Sequential(model)
    assert sum(1 for _ in pyparam.parameters(model)) == 2
    table = pyparam.walk(model)
    assert len(table) == 2
    assert table.names[0] == "0." * 100_000 + "weight"
    assert len(list(pyparam.modules(model))) == 100_001


def test_iterators_are_lazy_and_see_changes_as_generators_do() -> None:
    def change(model: nn.Sequential, listing) -> tuple[list[str], str]:
        names = []
        try:
            for name, _ in listing(model):
                names.append(name)
                if name == "0.weight":
                    model.add_module("late", nn.Linear(1, 1))
        except RuntimeError as error:
            return names, str(error)
        return names, ""

    assert change(demo(), pyparam.named_parameters) == change(demo(), nn.Module.named_parameters)
    iterator = pyparam.parameters(demo())
    assert next(iterator).shape == (3, 2)
    assert not isinstance(iterator, list)

    model = demo()
    iterator = pyparam.named_parameters(model)
    next(iterator)
    model[0].extra = nn.Parameter(torch.zeros(1))
    with pytest.raises(RuntimeError, match="dictionary changed size during iteration"):
        next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)


def test_a_length_hint_is_exact_and_takes_nothing() -> None:
    iterator = pyparam.named_parameters(demo())
    assert operator.length_hint(iterator) == 4
    next(iterator)
    assert operator.length_hint(iterator) == 3
    assert [name for name, _ in iterator] == ["0.bias", "1.0.weight", "1.0.bias"]
