"""Classes with methods of their own, other sources, and what is kept alive."""

from __future__ import annotations

import gc
import sys
import weakref
from collections import OrderedDict

import pytest
import reference_access as reference
import torch
from access_models import demo, same, same_state
from torch import nn
from torch.nn.utils import parametrize

import pyparam
from pyparam._sources import table_of


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
    with pytest.raises(
        TypeError, match="named_modules: an OrderedDict has no modules; expected an nn.Module"
    ):
        pyparam.named_modules(state)
    with pytest.raises(TypeError, match="get_submodule: an OrderedDict has no modules"):
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
