"""The access functions against nn.Module's own methods: the same items, the same order, the same errors."""

from __future__ import annotations

import copy
import gc
import operator
import sys
import warnings
import weakref
from collections import OrderedDict

import pytest
import reference_access as reference
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn.utils import parametrize

import pyparam
from pyparam._cli.demo import net as demo_net
from pyparam._sources import table_of


def same(model: nn.Module) -> None:
    """Every access function, lazily and in bulk, gives what the module's method gives."""
    for name in ("named_parameters", "parameters", "named_buffers", "buffers", "named_modules", "modules"):
        ours, theirs = getattr(pyparam, name), getattr(model, name)
        expected = reference.listing(theirs())
        assert reference.listing(list(ours(model))) == expected, name
        assert reference.listing(item for item in ours(model)) == expected, name
    for options in ({"recurse": False}, {"remove_duplicate": False}, {"prefix": "a.b"}):
        for name in ("named_parameters", "named_buffers"):
            expected = reference.listing(getattr(model, name)(**options))
            assert reference.listing(list(getattr(pyparam, name)(model, **options))) == expected, (
                name,
                options,
            )
            assert reference.listing(i for i in getattr(pyparam, name)(model, **options)) == expected
    for options in ({"remove_duplicate": False}, {"prefix": "a.b"}):
        expected = reference.listing(model.named_modules(**options))
        assert reference.listing(list(pyparam.named_modules(model, **options))) == expected
        assert reference.listing(i for i in pyparam.named_modules(model, **options)) == expected
    same_state(model)
    table = pyparam.walk(model)
    assert list(zip(table.names, map(id, table.tensors), strict=True)) == reference.listing(
        model.named_parameters()
    )


def same_state(model: nn.Module, **options: object) -> None:
    expected, got = model.state_dict(**options), pyparam.state_dict(model, **options)
    assert type(got) is type(expected)
    assert list(got) == list(expected)
    assert list(got._metadata.items()) == list(expected._metadata.items())
    for name, value in expected.items():
        if not isinstance(value, torch.Tensor):
            assert got[name] == value
            continue
        assert got[name].requires_grad == value.requires_grad
        assert type(got[name]) is type(value)
        # What a class makes anew at each call has the same values; the rest is the same memory.
        assert got[name].data_ptr() == value.data_ptr() or torch.equal(got[name], value)
        assert got[name].shape == value.shape
        assert got[name].stride() == value.stride()


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


def demo() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.ReLU()))


def test_a_length_hint_is_exact_and_takes_nothing() -> None:
    iterator = pyparam.named_parameters(demo())
    assert operator.length_hint(iterator) == 4
    next(iterator)
    assert operator.length_hint(iterator) == 3
    assert [name for name, _ in iterator] == ["0.bias", "1.0.weight", "1.0.bias"]


class Renaming(nn.Module):
    """A wrapper that tells of its content under the content's own names, as DDP-like wrappers do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def named_parameters(self, prefix: str = "", recurse: bool = True):  # without remove_duplicate
        for name, parameter in self.inner.named_parameters(prefix=prefix, recurse=recurse):
            yield "renamed." + name, parameter


class OldStyle(nn.Module):
    """named_modules as it was before remove_duplicate."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, 1)

    def named_modules(self, memo=None, prefix=""):
        if memo is None:
            memo = set()
        if self not in memo:
            memo.add(self)
            yield prefix, self


class OwnMembers(nn.Module):
    def _named_members(self, get_members_fn, prefix="", recurse=True, **kwargs):
        for name, member in super()._named_members(get_members_fn, prefix=prefix, recurse=recurse, **kwargs):
            yield name.upper(), member


def test_a_root_with_its_own_named_parameters_is_asked() -> None:
    model = Renaming(demo())
    expected = ["renamed.0.weight", "renamed.0.bias", "renamed.1.0.weight", "renamed.1.0.bias"]
    assert [name for name, _ in pyparam.named_parameters(model)] == expected
    assert reference.listing(pyparam.parameters(model)) == reference.listing(model.parameters())
    assert pyparam.walk(model).names == expected
    # Below another root, PyTorch does not ask it either.
    outer = nn.Sequential(model)
    assert reference.listing(pyparam.named_parameters(outer)) == reference.listing(outer.named_parameters())


@pytest.mark.parametrize("wrap", [nn.Sequential, lambda module: module])
def test_a_named_modules_without_remove_duplicate_is_asked_at_any_depth(wrap) -> None:
    model = wrap(OldStyle())
    names = [name for name, _ in pyparam.named_modules(model)]
    assert all("hidden" not in name for name in names)
    assert list(pyparam.named_parameters(model)) == []


def test_a_named_members_of_its_own_is_asked() -> None:
    model = OwnMembers()
    model.layer = nn.Linear(2, 2)
    assert [name for name, _ in pyparam.named_parameters(model)] == ["LAYER.WEIGHT", "LAYER.BIAS"]
    assert pyparam.walk(model).names == ["LAYER.WEIGHT", "LAYER.BIAS"]


def test_a_method_set_on_the_instance_counts() -> None:
    model = nn.Sequential(demo())
    model[0].named_modules = lambda memo=None, prefix="", remove_duplicate=True: iter(
        [(prefix + "!", model[0][0])]
    )
    assert reference.listing(list(pyparam.named_parameters(model))) == reference.listing(
        model.named_parameters()
    )
    assert "0!.weight" in dict(pyparam.named_parameters(model))
    model.state_dict = lambda *args, **kwargs: {"mine": 1}
    assert pyparam.state_dict(model) == {"mine": 1}


def test_a_memo_is_respected_and_filled() -> None:
    model = demo()
    memo, expected_memo = {model[1]}, {model[1]}
    got = reference.listing(pyparam.named_modules(model, memo=memo))
    assert got == reference.listing(model.named_modules(memo=expected_memo))
    assert memo == expected_memo


def test_modules_that_compare_by_value_are_deduplicated_as_pytorch_does() -> None:
    class ByValue(nn.Linear):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, ByValue)

        def __hash__(self) -> int:
            return 7

    model = nn.Sequential(nn.ReLU(), ByValue(1, 1), ByValue(1, 1))
    assert reference.listing(list(pyparam.named_modules(model))) == reference.listing(model.named_modules())
    assert reference.listing(list(pyparam.parameters(model))) == reference.listing(model.parameters())


def test_an_ordered_dict_keeps_its_own_order() -> None:
    model = nn.Module()
    model._modules = OrderedDict(a=nn.Linear(1, 1), b=nn.Linear(1, 1))
    model._modules.move_to_end("a")
    assert reference.listing(list(pyparam.named_modules(model))) == reference.listing(model.named_modules())
    same_state(model)


def test_parametrized_weights_are_listed_under_their_own_names() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    parametrize.register_parametrization(model[0], "weight", nn.Identity())
    assert "0.parametrizations.weight.original" in dict(pyparam.named_parameters(model))
    same(model)


class Extra(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def get_extra_state(self) -> dict[str, int]:
        return {"step": 3}

    def set_extra_state(self, state: object) -> None:
        pass


class OwnSave(nn.Linear):
    _version = 5

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "scale"] = torch.tensor(2.0)


class OwnStateDict(nn.Linear):
    def state_dict(self, *args, **kwargs):
        kwargs["destination"][kwargs["prefix"] + "only"] = torch.tensor(1)
        return kwargs["destination"]


@pytest.mark.parametrize("part", [Extra, lambda: OwnSave(1, 1), lambda: OwnStateDict(1, 1)])
def test_state_of_classes_that_write_their_own(part) -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Sequential(part(), nn.BatchNorm1d(1)))
    same_state(model)
    same_state(model, prefix="p.")


def test_state_dict_hooks_run_in_order() -> None:
    calls: list[tuple[str, str]] = []
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    model[0].register_state_dict_pre_hook(lambda module, prefix, keep_vars: calls.append(("pre", prefix)))
    model[1].register_state_dict_post_hook(
        lambda module, state, prefix, local: calls.append(("post", prefix))
    )
    model._register_state_dict_hook(lambda module, state, prefix, local: OrderedDict(list(state.items())[:1]))
    expected, expected_calls = model.state_dict(), list(calls)
    calls.clear()
    got = pyparam.state_dict(model)
    assert list(got) == list(expected) == ["0.weight"]
    assert calls == expected_calls
    model[1].register_state_dict_post_hook(lambda *args: 3)
    with pytest.raises(RuntimeError, match="state_dict post-hook must return None"):
        pyparam.state_dict(model)


def test_state_dict_into_a_destination() -> None:
    model = demo()
    mine: dict[str, torch.Tensor] = {}
    assert pyparam.state_dict(model, destination=mine, prefix="m.") is mine
    assert list(mine) == ["m." + name for name in model.state_dict()]


def test_detached_state_is_what_detach_gives() -> None:
    model = demo()
    for ours, theirs in zip(pyparam.state_dict(model).values(), model.state_dict().values(), strict=True):
        assert ours._version == theirs._version
        assert ours._is_view() == theirs._is_view()
        assert ours.is_leaf
        for change in (lambda t: t.resize_(100), lambda t: t.set_(torch.zeros(3)), lambda t: t.t_()):
            outcomes = []
            for tensor in (ours.detach(), theirs.detach(), ours, theirs):
                try:
                    outcomes.append(tuple(change(tensor).shape))
                except RuntimeError as error:
                    outcomes.append(str(error))
            assert outcomes[0] == outcomes[1]
            assert outcomes[2] == outcomes[3]
    state = pyparam.state_dict(model)
    with torch.no_grad():
        model[0].weight.add_(1)
    assert state["0.weight"]._version == model[0].weight._version
    with torch.inference_mode():
        same_state(demo())
    same_state(nn.Linear(2, 2, dtype=torch.complex64))
    with torch.device("meta"):
        same_state(nn.Linear(2, 2))


def test_a_tensor_subclass_is_detached_by_its_own_detach() -> None:
    class Marked(torch.Tensor):
        pass

    model = nn.Module()
    model.w = nn.Parameter(torch.ones(2).as_subclass(Marked))
    model.register_buffer("b", torch.ones(2).as_subclass(Marked))
    same_state(model)


def test_other_sources_have_the_same_functions() -> None:
    state = demo().state_dict()
    assert [n for n, _ in pyparam.named_parameters(state)] == list(state)
    assert [n for n, _ in pyparam.named_parameters(state, prefix="p", recurse=False)] == []
    assert list(pyparam.buffers(state)) == []
    assert pyparam.get_parameter(state, "0.bias") is state["0.bias"]
    assert list(pyparam.state_dict(state)) == list(state)
    with pytest.raises(AttributeError, match=r"get_parameter: no entry named '0.bais'.*'0.bias'"):
        pyparam.get_parameter(state, "0.bais")
    with pytest.raises(TypeError, match="named_modules: a OrderedDict has no modules; expected an nn.Module"):
        pyparam.named_modules(state)
    with pytest.raises(TypeError, match="get_submodule: a OrderedDict has no modules"):
        pyparam.get_submodule(state, "0")


def test_get_functions_are_pytorchs() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2))
    assert pyparam.get_parameter(model, "0.weight") is model[0].weight
    assert pyparam.get_buffer(model, "0.running_mean") is model[0].running_mean
    assert pyparam.get_submodule(model, "0") is model[0]
    with pytest.raises(AttributeError, match="has no attribute `nothing`"):
        pyparam.get_parameter(model, "0.nothing")
    with pytest.raises(AttributeError, match="is not a buffer"):
        pyparam.get_buffer(model, "0.weight")


def test_a_name_that_is_no_str_is_pytorchs_error() -> None:
    model = nn.Module()
    model._modules[3] = nn.Linear(1, 1)
    with pytest.raises(TypeError):
        list(model.named_parameters())
    with pytest.raises(TypeError, match="can only concatenate str"):
        list(pyparam.named_parameters(model))


def test_what_is_no_tensor_is_named() -> None:
    model = nn.Sequential(nn.Module())
    model[0]._parameters["odd"] = "text"
    with pytest.raises(TypeError, match=r"walk: '0.odd' is no tensor but a str"):
        pyparam.walk(model)


def test_nothing_is_kept_alive_and_nothing_leaks() -> None:
    def used(model: nn.Module) -> None:
        list(pyparam.named_parameters(model))
        next(pyparam.named_modules(model))
        pyparam.state_dict(model)
        pyparam.walk(model, buffers=True)

    model = demo()
    used(model)
    before = [sys.getrefcount(p) for p in model.parameters()] + [sys.getrefcount(m) for m in model.modules()]
    for _ in range(5):
        used(model)
    after = [sys.getrefcount(p) for p in model.parameters()] + [sys.getrefcount(m) for m in model.modules()]
    assert before == after
    table = pyparam.walk(model)
    assert table.owners[0] is model[0]
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert table.owners == [None] * 4
    for make in (pyparam.walk, table_of):
        made = make(demo())
        alive = weakref.ref(made)
        gc.disable()
        try:
            del made
            assert alive() is None  # at once: no cycle holds its tensors
        finally:
            gc.enable()
    assert table["0.weight"].shape == (3, 2)


def test_an_iterator_in_a_cycle_is_collected() -> None:
    model = demo()
    iterator = pyparam.named_parameters(model)
    next(iterator)
    model.mine = [iterator]
    gone = weakref.ref(model)
    del model, iterator
    gc.collect()
    assert gone() is None


def test_the_collector_is_left_as_it_was() -> None:
    assert gc.isenabled()
    list(pyparam.named_parameters(demo()))
    assert gc.isenabled()
    gc.disable()
    try:
        pyparam.state_dict(demo())
        assert not gc.isenabled()
    finally:
        gc.enable()
