"""The Inspector: a mirror of a model, for every kind of source."""

from __future__ import annotations

import copy
import gc
import pickle
import time
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from benchmarks.models import chain, mixture, net, tree
from pyparam import Inspector, inspect
from tests.reference_view import Zoo, bare_chain


@pytest.fixture
def zoo():
    return Zoo()


# --- modules ---------------------------------------------------------------------------------------------


def test_the_very_same_objects(zoo):
    mirror = inspect(zoo)
    assert mirror.stack[0].bias is zoo.stack[0].bias
    assert mirror.layers[-1].weight is zoo.layers[-1].weight
    assert mirror.heads["cls"].bias is zoo.heads["cls"].bias
    assert mirror.heads.cls.bias is zoo.heads.cls.bias
    assert mirror.scales[1] is zoo.scales[1]
    assert mirror.gains["a"] is zoo.gains["a"]
    assert mirror.norm.running_mean is zoo.norm.running_mean
    assert mirror.stack[2].bias is None
    assert mirror.nothing is None
    assert mirror.stack[0].in_features == 2
    assert mirror.training is True
    assert mirror.heads.keys() == zoo.heads.keys()


def test_the_example():
    model = net()
    assert inspect(model)[0][1][0].bias.data.data_ptr() == model[0][1][0].bias.data_ptr()
    assert inspect(model)["0.block 1.0.bias"] is model[0][1][0].bias
    assert inspect(model)["0.block 1"][0].bias is model[0][1][0].bias
    model(torch.rand(2, 4)).sum().backward()
    assert inspect(model)[0][1][0].bias.grad is model[0][1][0].bias.grad


def test_values_change_in_place_through_it():
    model = net()
    inspect(model)[1].bias.data.fill_(7)
    assert model[1].bias.item() == 7


def test_qualified_names_reach_everything(zoo):
    mirror = inspect(zoo)
    for name, parameter in zoo.named_parameters(remove_duplicate=False):
        assert mirror[name] is parameter
        assert name in mirror
    for name, buffer in zoo.named_buffers():
        assert mirror[name] is buffer
    for name, module in zoo.named_modules():
        assert mirror[name].module is module
        assert mirror[name].name == name
    assert mirror[""] is mirror
    assert "stack.9" not in mirror


def test_it_reads_the_model_as_it_is_now(zoo):
    mirror, stack = inspect(zoo), inspect(zoo).stack
    zoo.stack[0] = nn.Linear(2, 9)
    assert mirror.stack[0].bias is zoo.stack[0].bias
    assert stack["0.bias"] is zoo.stack[0].bias
    zoo.stack.append(nn.Linear(2, 2))
    assert len(stack) == 4
    zoo.late = nn.Parameter(torch.zeros(1))
    assert mirror.late is zoo.late
    assert "late" in [name for name, _ in mirror.named_parameters()]


@pytest.mark.parametrize(
    "key", [slice(1, 3), slice(None, None, 2), slice(-2, None), slice(None, None, -1), slice(5, 9)]
)
def test_slices_are_views_that_count_from_0(zoo, key):
    part = inspect(zoo).layers[key]
    expected = list(zoo.layers)[key]
    assert isinstance(part, Inspector)
    assert len(part) == len(expected)
    assert [item.module for item in part] == expected
    assert all(part[i].module is module for i, module in enumerate(expected))
    if expected:
        assert part[-1].module is expected[-1]
        # Names stay the model's own.
        assert (
            part[0].name
            == inspect(zoo).layers[key][0].name
            == f"layers.{list(zoo.layers).index(expected[0])}"
        )
    assert part.module is None
    assert [t for _, t in part.named_parameters()] == [t for m in expected for t in m.parameters()]
    with pytest.raises(IndexError, match="no \\[9\\]"):
        part[9]


def test_slices_of_slices_of_parameters_and_of_named_blocks(zoo):
    assert inspect(zoo).layers[1:][1:][0].module is zoo.layers[2]
    assert inspect(zoo).scales[1:][0] is zoo.scales[1]
    model = net()
    part = inspect(model)[0][1:3]
    assert part[0].name == "0.block 1"
    assert part["block 2.0.bias"] is model[0][2][0].bias
    assert [name for name, _ in part.named_children()] == ["block 1", "block 2"]


def test_iteration_and_length_are_the_container_s(zoo):
    mirror = inspect(zoo)
    assert [m.module for m in mirror.layers] == list(zoo.layers)
    assert [m.name for m in mirror.layers] == [f"layers.{i}" for i in range(4)]
    assert list(mirror.heads) == ["cls", "weight"]
    assert list(mirror.gains) == ["a", "b"]
    assert all(a is b for a, b in zip(mirror.scales, zoo.scales, strict=True))
    assert [len(mirror[n]) for n in ("stack", "layers", "heads", "scales", "gains")] == [3, 4, 2, 2, 2]
    with pytest.raises(TypeError, match=r"'norm' \(BatchNorm1d\) is not iterable"):
        iter(mirror.norm)
    with pytest.raises(TypeError, match=r"'norm' \(BatchNorm1d\) has no length"):
        len(mirror.norm)
    assert bool(mirror.norm)


def test_membership(zoo):
    mirror = inspect(zoo)
    assert "stack.0.bias" in mirror
    assert "bias" not in mirror
    assert zoo.stack in mirror
    assert mirror.stack in mirror
    assert zoo.scales[0] in mirror.scales
    assert nn.ReLU() not in mirror.stack


def test_parent_and_name(zoo):
    deep = inspect(zoo)["stack.0"]
    assert deep.parent.name == "stack"
    assert deep.parent.parent.name == ""
    assert deep.parent.parent.parent is None
    named = dict(inspect(zoo).named_modules())
    assert named["heads.cls"].parent == zoo.heads
    assert named["heads.cls"].name == "heads.cls"


def test_listings_are_the_module_s_own(zoo):
    mirror = inspect(zoo)
    assert list(mirror.named_parameters()) == list(zoo.named_parameters())
    assert len(list(mirror.named_parameters(remove_duplicate=False))) == len(list(zoo.parameters())) + 1
    assert list(mirror.named_parameters("x", recurse=False)) == []
    assert [id(p) for p in mirror.parameters()] == [id(p) for p in zoo.parameters()]
    assert [n for n, _ in mirror.named_buffers()] == [n for n, _ in zoo.named_buffers()]
    assert [id(b) for b in mirror.buffers()] == [id(b) for b in zoo.buffers()]
    assert [(n, m.module) for n, m in mirror.named_modules(prefix="p")] == list(zoo.named_modules(prefix="p"))
    assert [m.module for m in mirror.modules()] == list(zoo.modules())
    assert [(n, m.module) for n, m in mirror.named_children()] == list(zoo.named_children())
    assert [m.module for m in mirror.children()] == list(zoo.children())
    assert mirror.state_dict().keys() == zoo.state_dict().keys()
    assert mirror.state_dict(prefix="p.", keep_vars=True)["p.stack.0.bias"] is zoo.stack[0].bias
    with pytest.raises(TypeError, match="takes no memo"):
        list(mirror.named_modules({1}))


def test_getters_are_the_module_s_own(zoo):
    mirror = inspect(zoo)
    assert mirror.get_parameter("stack.0.bias") is zoo.stack[0].bias
    assert mirror.get_buffer("norm.running_var") is zoo.norm.running_var
    assert mirror.get_submodule("heads.cls").module is zoo.heads.cls
    for get, name in (
        (mirror.get_parameter, "norm.running_var"),
        (mirror.get_buffer, "stack.0.bias"),
        (mirror.get_submodule, "stack.0.bias"),
        (mirror.get_parameter, "stack"),
    ):
        with pytest.raises(AttributeError, match="is no (parameter|buffer|module)"):
            get(name)
    with pytest.raises(AttributeError, match="close to it: 'stack.0.bias'"):
        mirror.get_parameter("stack.0.bais")


def test_an_entry_of_the_model_comes_before_the_inspector_s_own_names():
    model = nn.Module()
    for name in ("module", "name", "parent", "select"):
        model.add_module(name, nn.Linear(2, 2))
    mirror = inspect(model)
    for name in ("module", "name", "parent", "select"):
        assert getattr(mirror, name).weight is model._modules[name].weight
    assert inspect(nn.DataParallel(nn.Linear(2, 2))).module.in_features == 2
    keyed = nn.ModuleDict({"module": nn.Linear(1, 2), "a": nn.Linear(3, 4)})
    assert inspect(keyed)["a"].in_features == 3
    assert list(inspect(keyed)) == ["module", "a"]
    with pytest.raises(KeyError, match="has no 0"):
        inspect(keyed)[0]
    listed = nn.Sequential()
    listed.add_module("module", nn.Linear(1, 2))
    listed.add_module("name", nn.Linear(3, 4))
    assert inspect(listed)[1].in_features == 3
    assert [part.in_features for part in inspect(listed)] == [1, 3]
    assert inspect(listed)[1:][0].in_features == 3


def test_a_parametrized_weight_is_an_attribute_and_no_entry():
    layer = parametrizations.weight_norm(nn.Linear(2, 2))
    assert torch.equal(inspect(layer).weight, layer.weight)
    with pytest.raises(KeyError, match="'weight' is no parameter"):
        inspect(layer)["weight"]
    name = "parametrizations.weight.original0"
    assert inspect(layer)[name] is layer.get_parameter(name)


def test_equality_and_hash(zoo):
    assert inspect(zoo).stack == inspect(zoo).stack == zoo.stack
    assert inspect(zoo).stack != inspect(zoo).layers
    assert len({inspect(zoo).stack, inspect(zoo)["stack"]}) == 1
    assert inspect(zoo) != 3
    assert inspect(inspect(zoo)) == inspect(zoo)


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(1, 1)

    def __getitem__(self, key):
        return {"alias": self.first, ("t", 1): 5, 0: self.first}[key]


def test_a_class_s_own_indexing_counts():
    model = Custom()
    assert inspect(model)["alias"].weight is model.first.weight
    assert inspect(model)[0].name == "first"
    assert inspect(model)["t", 1] == 5
    with pytest.raises(KeyError, match="has no 7"):
        inspect(model)[7]


def test_a_property_s_own_error_comes_through():
    class Broken(nn.Module):
        @property
        def size(self):
            return self.inner_thing

    with pytest.raises(AttributeError) as raised:
        _ = Broken().size
    with pytest.raises(AttributeError) as mirrored:
        _ = inspect(Broken()).size
    assert str(mirrored.value) == str(raised.value)


# --- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reach", "error", "words"),
    [
        (lambda m: m.layers[4], IndexError, r"'layers' \(ModuleList\) of length 4 has no 4"),
        (lambda m: m.stack[-4], IndexError, r"'stack' \(Sequential\) of length 3 has no -4"),
        (lambda m: m.heads["clz"], KeyError, r"'clz' is no parameter.*'heads' \(ModuleDict\).*'cls'"),
        (
            lambda m: m["stack.0.bais"],
            KeyError,
            r"'stack.0.bais' is no .*there is 'stack.0', and no 'bais' in it.*'stack.0.bias'",
        ),
        (lambda m: m["stak.0.bias"], KeyError, r"close to it: 'stack.0.bias'"),
        (lambda m: m.stack[0].wieght, AttributeError, r"'stack.0' \(Linear\) has no .*'wieght'.*'weight'"),
        (lambda m: m.stakc, AttributeError, r"Zoo has no .*'stakc'.*'stack'"),
        (lambda m: m.norm[0], TypeError, r"'norm' \(BatchNorm1d\) has no numbered entries"),
        (lambda m: m.norm[0:1], TypeError, r"'norm' \(BatchNorm1d\) has no numbered entries"),
        (lambda m: m.norm[1.5], TypeError, r"'norm' \(BatchNorm1d\) is indexed by numbers, slices and names"),
        (lambda m: m["stack..bias"], KeyError, "'stack..bias' is no parameter"),
    ],
)
def test_errors_say_where_and_what_is_close(zoo, reach, error, words):
    with pytest.raises(error, match=words):
        reach(inspect(zoo))


def test_nothing_is_set_through_it(zoo):
    mirror = inspect(zoo)
    with pytest.raises(AttributeError, match="is a view: cannot set 'stack'"):
        mirror.stack = nn.ReLU()
    with pytest.raises(AttributeError, match="is a view: cannot delete 'stack'"):
        del mirror.stack
    with pytest.raises(TypeError):
        mirror["stack"] = nn.ReLU()
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        copy.deepcopy(mirror)
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        pickle.dumps(mirror)


@pytest.mark.parametrize("source", [3, None, object()])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(TypeError):
        inspect(source)


# --- printing, tables, size --------------------------------------------------------------------------------


def test_repr_of_a_model():
    assert repr(inspect(net())).splitlines() == [
        "Sequential(  # 309 values",
        "  (0): Sequential(  # 304 values",
        "    (block 0 – block 3): 4 x Sequential(  # 76 values each",
        "      (0): Linear(in_features=4, out_features=8, bias=True)  # weight [8, 4], bias [8]: 40 values",
        "      (1): ReLU()",
        "      (2): Linear(in_features=8, out_features=4, bias=True)  # weight [4, 8], bias [4]: 36 values",
        "      (3): ReLU()",
        "    )",
        "  )",
        "  (1): Linear(in_features=4, out_features=1, bias=True)  # weight [1, 4], bias [1]: 5 values",
        ")",
    ]


def test_repr_does_not_say_of_all_what_is_so_of_some():
    text = repr(inspect(nn.ModuleList(nn.Sequential(nn.Linear(1, 1), nn.Dropout(i / 4)) for i in range(3))))
    assert "3 x Sequential" in text
    assert "Dropout()" in text
    assert "in_features=1" in text


def test_repr_is_short_whatever_the_model():
    distinct = nn.ModuleList(nn.Linear(1, 1 + i) for i in range(3000))
    for model in (chain(3000), distinct, tree(256), mixture(2, 3)):
        assert len(repr(inspect(model)).splitlines()) < 300
    assert "…" in repr(inspect(distinct))


def test_tab_completion(zoo):
    names = dir(inspect(zoo))
    assert {"stack", "layers", "forward", "named_parameters", "select", "parent"} <= set(names)
    assert not [name for name in names if name.startswith("_Inspector__")]
    keys = inspect(zoo)._ipython_key_completions_()
    assert {"stack", "stack.0.bias"} <= set(keys)
    assert "block 1" in inspect(net().state_dict())[0]._ipython_key_completions_()
    assert "weight" in dir(inspect({"a.weight": torch.zeros(1)}).a)


def test_it_is_a_source(zoo):
    table = inspect(zoo).stack.__pyparam_table__()
    assert table.names == ["0.weight", "0.bias", "2.weight"]
    assert all(a is b for a, b in zip(table.tensors, zoo.stack.parameters(), strict=True))
    with_buffers = inspect(zoo).__pyparam_table__(buffers=True)
    assert "norm.running_mean" in with_buffers.names
    part = inspect(zoo).layers[0:2].__pyparam_table__()
    assert part.names == ["0.weight", "0.bias", "1.weight", "1.bias"]
    state = inspect(zoo.state_dict()).stack.__pyparam_table__()
    assert state.names == ["0.weight", "0.bias", "2.weight"]


def test_select_is_within_the_subtree(zoo):
    assert inspect(zoo).stack.select("*.weight").names == ["0.weight", "2.weight"]
    assert inspect(zoo.state_dict()).stack.select("*.bias").names == ["0.bias"]


def test_depth_is_not_bounded_by_a_stack():
    depth = 100_000
    model = bare_chain(depth)
    mirror = inspect(model)
    name = "rest." * (depth - 1) + "layer.bias"
    bottom = mirror[name]
    assert bottom is mirror.get_parameter(name)
    deepest = mirror["rest." * (depth - 1) + "layer"]
    assert deepest.bias is bottom
    assert len(deepest.name) == len(name) - len(".bias")
    assert len(repr(mirror)) < 100_000
    del mirror, deepest
    tree_mirror = inspect({name: bottom})
    assert tree_mirror[name] is bottom
    assert len(repr(tree_mirror)) < 100_000


def test_it_keeps_nothing_alive_once_gone(zoo):
    dead = weakref.ref(zoo)
    mirror = inspect(zoo)
    assert repr(mirror)
    _ = mirror.stack[0].bias, list(mirror.named_modules())
    del zoo, mirror
    gc.collect()
    if dead() is not None:
        # The fixture holds it until the test ends.
        assert sum(isinstance(o, Inspector) for o in gc.get_referrers(dead())) == 0


@pytest.mark.slow
def test_repr_of_the_mixture_takes_less_than_two_seconds():
    model = mixture()
    start = time.perf_counter()
    assert "61 x MixtureLayer" in repr(inspect(model))
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("name", ["0.weight.data", "0.weight.grad", "weight.data", "0.weight.weight.weight"])
def test_a_name_goes_on_below_a_tensor(name: str) -> None:
    net = nn.Sequential(nn.Linear(1, 1)) if name.startswith("0") else nn.Linear(1, 1)
    tensor, _, left = name.partition("weight.")
    with pytest.raises(KeyError) as raised:
        inspect(net)[name]
    message = str(raised.value.args[0])
    assert f"{tensor + 'weight'!r} is a tensor, and names end there; its {left!r} is an attribute" in message
    assert name not in inspect(net)


def test_names_close_to_one_another_do_not_ask_each_other() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(1, 1)))
    for name in ("0.0.weight.weight", "0.0.weigth.data", "0.O.weight", "0.0.0.weight", "O.0.weight"):
        with pytest.raises(KeyError, match="is no parameter, buffer or module"):
            inspect(net)[name]
