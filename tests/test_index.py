"""index: a mapping that is always what dict(model.named_parameters()) is."""

from __future__ import annotations

import copy
import pickle
import random
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import pyparam


def class_versions_are_used_up() -> bool:
    """CPython 3.13 and later give one class 1,000 versions, and the tests of installing change nn.Module more
    often: then no class of modules has one, and an index walks each time."""
    if sys.version_info < (3, 13):
        return False
    return not pytest.importorskip("_testcapi").type_assign_version(nn.Module)


@pytest.fixture
def class_versions() -> None:
    if class_versions_are_used_up():
        pytest.skip("this process has changed nn.Module more often than CPython counts")


needs_class_versions = pytest.mark.usefixtures("class_versions")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            first=nn.Linear(2, 3),
            blocks=nn.ModuleList([nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for _ in range(3)]),
            last=nn.Linear(3, 1),
        )
    )


def listed(model: nn.Module, buffers: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = dict(model.named_parameters())
    if buffers:
        found.update(model.named_buffers())
    return found


def agree(params: pyparam.Index, buffers: bool = False) -> None:
    expected = listed(params.model, buffers)
    for got in (dict(params), dict(params.items()), dict(params.snapshot())):
        assert list(got) == list(expected)
        assert all(got[name] is tensor for name, tensor in expected.items())
    assert len(params) == len(expected)
    assert list(params.values()) == list(params.snapshot().values())
    for name, tensor in params.model.named_parameters(remove_duplicate=False):
        assert params[name] is tensor
        assert name in params
    if not buffers:
        for name, _ in params.model.named_buffers():
            assert name not in params


@needs_class_versions
def test_it_is_a_mapping_of_the_parameters() -> None:
    model = net()
    params = pyparam.index(model)
    agree(params)
    assert params.live
    assert params["blocks.1.0.weight"] is model.blocks[1][0].weight
    assert params.get("nothing") is None
    assert repr(params) == f"Index of {len(params)} parameters of a Sequential"
    assert params.model is model
    assert type(params) is pyparam.Index
    with pytest.raises(KeyError, match=r"no entry named 'first.wieght' in the model.*'first.weight'"):
        params["first.wieght"]
    for wrong in (3, None, b"first.weight", ("first", "weight")):
        assert wrong not in params
        with pytest.raises(KeyError, match="indexed by names"):
            params[wrong]
    for name in (
        "",
        ".",
        "first",
        "first.",
        ".first.weight",
        "first..weight",
        "first.weight.",
        "blocks.9.0.bias",
    ):
        assert name not in params
    with pytest.raises(TypeError, match="index: expected an nn.Module, got a dict"):
        pyparam.index({})
    with pytest.raises(TypeError):
        params.snapshot()["first.weight"] = None


def test_buffers_come_after_the_parameters() -> None:
    params = pyparam.index(net(), buffers=True)
    agree(params, buffers=True)
    params.model.blocks[0][1].register_buffer("more", torch.ones(1))
    agree(params, buffers=True)
    params.model.blocks[0][1].running_mean = None
    agree(params, buffers=True)


@needs_class_versions
def test_an_unchanged_model_is_not_walked_again() -> None:
    params = pyparam.index(net())
    kept = params._current()
    params.model.train().eval()
    params.model.last(params.model.first(torch.ones(2, 2))).sum().backward()
    params.model.first.note = "an attribute that is none of ours"
    params.model.zero_grad()
    with torch.no_grad():
        params["first.weight"].data = torch.zeros(3, 2)
    params.model.requires_grad_(False)
    assert params._current() is kept


def set_item(mapping: Any, key: str, value: Any) -> None:
    mapping[key] = value


CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "a parameter replaced": lambda m: setattr(m.first, "weight", nn.Parameter(torch.ones(3, 2))),
    "a parameter made None": lambda m: setattr(m.first, "bias", None),
    "a parameter deleted": lambda m: delattr(m.first, "bias"),
    "a parameter registered": lambda m: m.blocks[2][1].register_parameter("x", nn.Parameter(torch.ones(1))),
    "in a module without": lambda m: m.blocks.register_parameter("x", nn.Parameter(torch.ones(1))),
    "a module replaced": lambda m: set_item(m.blocks, 1, nn.Linear(1, 1)),
    "a module added": lambda m: m.add_module("x", nn.Linear(1, 1)),
    "a module appended": lambda m: m.blocks.append(nn.Linear(1, 1)),
    "a module made None": lambda m: setattr(m, "last", None),
    "a module deleted": lambda m: delattr(m, "last"),
    "a leaf given a child": lambda m: m.last.add_module("x", nn.Linear(1, 1)),
    "modules popped": lambda m: m.blocks.pop(0),
    "a dict written to": lambda m: m.first._parameters.update(y=nn.Parameter(torch.ones(1))),
    "a dict cleared": lambda m: m._modules.clear(),
    "a dict replaced": lambda m: setattr(m.first, "_parameters", {"z": nn.Parameter(torch.ones(1))}),
    "a dict replaced that somebody holds": lambda m: (
        setattr(m, "held", [m.first._parameters]),
        setattr(m.first, "_parameters", {"z": nn.Parameter(torch.ones(1))}),
    ),
    "a dict of modules replaced": lambda m: m.__dict__.update(_modules={"q": nn.Linear(1, 1)}),
    "an OrderedDict instead": lambda m: setattr(m.first, "_parameters", OrderedDict(m.first._parameters)),
    "the instance's dict updated": lambda m: m.first.__dict__.update(_parameters={}),
    "a parameter tied": lambda m: setattr(m.blocks[1][0], "weight", m.blocks[0][0].weight),
    "a module shared": lambda m: setattr(m, "last", m.first),
    "moved in order": lambda m: m._modules.update(first=m._modules.pop("first")),
    "parametrized": lambda m: parametrizations.weight_norm(m.first),
    "parametrized and not": lambda m: parametrize.remove_parametrizations(
        parametrizations.spectral_norm(m.first), "weight"
    ),
    "pruned": lambda m: prune.random_unstructured(m.last, "weight", 0.5),
    "converted": lambda m: m.double(),
    "loaded with assign": lambda m: m.load_state_dict(copy.deepcopy(m.state_dict()), assign=True),
    "a method in an instance": lambda m: setattr(m.blocks, "named_modules", lambda *a, **k: iter([])),
    "a method in the root": lambda m: setattr(
        m, "named_parameters", lambda *a, **k: iter([("a", m.first.bias)])
    ),
    "a class set": lambda m: setattr(m, "__class__", Renaming),
}


class Renaming(nn.Sequential):
    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        return ((f"mine.{name}", p) for name, p in super().named_parameters(*args, **kwargs))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_is_noticed(change: str) -> None:
    params = pyparam.index(net())
    agree(params)
    CHANGES[change](params.model)
    agree(params)
    agree(params)
    params.model.add_module("after", nn.Linear(1, 1))
    agree(params)


NOTHING_ELSE: list[Callable[[nn.Module, Any], Any]] = [
    lambda m, other: object.__setattr__(m, "__class__", Renaming),
    lambda m, other: m._modules["first"]._parameters.__setitem__("bias", None),
    lambda m, other: m._modules.pop("last"),
    lambda m, other: m._modules["blocks"]._modules.clear(),
    lambda m, other: object.__setattr__(m._modules["first"], "__dict__", other),
]


@pytest.mark.parametrize("change", NOTHING_ELSE)
def test_a_change_between_two_looks_is_noticed(change: Callable[[nn.Module, Any], Any]) -> None:
    """Also where nothing else happens in between, so that no other dict of the process has changed."""
    model = net()
    other = {**model.first.__dict__, "_parameters": {"other": nn.Parameter(torch.ones(1))}}
    params = pyparam.index(model)
    first, again = params.snapshot(), params.snapshot()
    change(model, other)
    changed = params.snapshot()
    assert list(first) == list(again)
    assert list(changed) == list(listed(model)) != list(first)


def test_a_new_instance_dict_is_noticed() -> None:
    params = pyparam.index(net())
    agree(params)
    first = params.model.first
    first.__dict__ = {**first.__dict__, "_parameters": {"other": nn.Parameter(torch.ones(1))}}
    agree(params)


@needs_class_versions
def test_a_changed_class_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(nn.Sequential):
        pass

    params = pyparam.index(Own(nn.Linear(1, 1), nn.Linear(1, 1)))
    agree(params)
    assert params.live
    monkeypatch.setattr(Own, "named_parameters", Renaming.named_parameters, raising=False)
    monkeypatch.setattr(
        Own, "named_parameters", lambda self, *a, **k: iter([("w", self[0].weight)]), raising=False
    )
    agree(params)
    assert not params.live
    monkeypatch.undo()
    agree(params)
    assert params.live
    with pyparam.installed():
        agree(params)
        assert params.live
    agree(params)


def test_models_whose_changes_cannot_be_noticed_are_walked_each_time() -> None:
    for model in (
        Renaming(nn.Linear(1, 1)),
        nn.Sequential(Renaming(nn.Linear(1, 1)), nn.Linear(1, 1)),
        nn.Sequential(nn.Linear(1, 1)),
    ):
        params = pyparam.index(model)
        if not isinstance(model, Renaming):
            model[0]._parameters = OrderedDict(model[0]._parameters)
            assert not params.live
        agree(params)
        model.add_module("more", nn.Linear(1, 1))
        agree(params)
        model[0].extra = nn.Parameter(torch.ones(1))
        agree(params)


def test_random_changes() -> None:
    for seed in range(40):
        chance = random.Random(seed)
        params = pyparam.index(net(), buffers=seed % 2 == 1)
        for _ in range(25):
            modules = list(params.model.modules())
            module = chance.choice(modules)
            action = chance.randrange(11)
            if action == 0:
                module.register_parameter(chance.choice("abc"), nn.Parameter(torch.ones(1)))
            elif action == 1:
                module.add_module(chance.choice("xyz"), nn.Linear(1, 1))
            elif action == 2 and module._parameters:
                delattr(module, chance.choice(list(module._parameters)))
            elif action == 3 and module._modules:
                del module._modules[chance.choice(list(module._modules))]
            elif action == 4:
                module.register_buffer(chance.choice("def"), torch.ones(1))
            elif action == 5:
                module.train(chance.random() < 0.5)
            elif action == 6 and module._parameters:
                name = chance.choice(list(module._parameters))
                module._parameters[name] = chance.choice([None, *params.model.parameters()])
            elif action == 7:
                module._modules = dict(module._modules)
            elif action == 8 and type(module) in (nn.Sequential, Renaming):
                module.__class__ = chance.choice([nn.Sequential, Renaming])
            elif action == 9:
                module.__dict__ = dict(module.__dict__)
            else:
                params.model.float()
            agree(params, buffers=seed % 2 == 1)


def test_two_indexes_and_dead_models() -> None:
    model = net()
    one, two = pyparam.index(model), pyparam.index(model)
    other = pyparam.index(net())
    agree(one)
    model.add_module("x", nn.Linear(1, 1))
    for params in (two, one, other):
        agree(params)
    for _ in range(20):
        short = pyparam.index(net())
        agree(short)
        del short
    agree(one)
    one.model.last = net()
    part = pyparam.index(one.model.last)
    agree(part)
    one.model.last = None
    agree(one)
    agree(part)


def test_copies_and_pickles_are_of_the_model() -> None:
    params = pyparam.index(net())
    agree(params)
    for made in (copy.deepcopy(params), pickle.loads(pickle.dumps(params))):
        agree(made)
        assert made.model is not params.model
    assert copy.copy(params).model is params.model
    assert params == params
    assert params != copy.copy(params)
    assert {params: 1}[params] == 1


def test_a_model_that_contains_itself() -> None:
    model = net()
    model.blocks.add_module("up", model)
    params = pyparam.index(model)
    expected = dict(model.named_parameters())
    assert list(params) == list(expected)
    assert params["blocks.up.first.weight"] is model.first.weight


def test_a_class_changed_more_often_than_cpython_counts() -> None:
    class Often(nn.Linear):
        changes = 0

    model = Often(2, 3)
    for i in range(1_100):
        Often.changes = i
        assert len(pyparam.index(model)) == 2
    params = pyparam.index(model)
    agree(params)
    assert params.live == (sys.version_info < (3, 13))  # 3.13 counts to 1,000
    model.register_parameter("more", nn.Parameter(torch.ones(1)))
    Often.named_parameters = lambda self, *args, **options: iter([("own", self.more)])  # type: ignore[method-assign]
    assert list(params) == list(dict(model.named_parameters())) == ["own"]
