"""load_state_dict(assign=True) under install(): PyTorch's own, value by value and object by object."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from load_state_dict_twins import PYTORCHS, Made, Net, check, fresh, plain, updated, without
from torch import nn
from torch.nn.modules import module as torch_module

import pyparam
from pyparam._base.native import _C


def parameters_of(state: Any) -> None:
    for name, value in state.items():
        if value.is_floating_point() and "running" not in name:
            state[name] = nn.Parameter(value, requires_grad=name != "scale")


def attributed(name: str) -> Callable[[Any], None]:
    return lambda state: setattr(state["steps"], name, True)


TAKEN: dict[str, Callable[[], Made]] = {
    "as it is": plain,
    "parameters": lambda: plain(parameters_of),
    "other dtypes and strides": lambda: plain(
        updated(first__weight=torch.randn(3, 4).double().t(), norm__running_mean=torch.ones(4).half())
    ),
    "on meta": lambda: plain(make=lambda: Net().to("meta")),
    "without metadata": lambda: plain(dict),
    "a model that is nothing": lambda: plain(make=nn.Module),
}


@pytest.mark.parametrize("what", TAKEN)
def test_natively(what: str) -> None:
    told = check(TAKEN[what], native=True, assign=True)
    assert told == ["_IncompatibleKeys", [], []]


LEFT: dict[str, Callable[[], Made]] = {
    "another shape": lambda: plain(updated(first__weight=torch.ones(2, 2))),
    "a number of one dimension": lambda: plain(updated(scale=torch.ones(1))),
    "no tensor": lambda: plain(updated(first__bias=[1.0])),
    "integers that require gradients": lambda: plain(updated(first__bias=torch.ones(4, dtype=torch.int32))),
    "a parameter for a buffer": lambda: plain(updated(norm__running_var=nn.Parameter(torch.ones(4)))),
    "called a parameter": lambda: plain(attributed("_is_param")),
    "called a buffer": lambda: plain(attributed("_is_buffer")),
    "a module with a __setattr__ of its own": lambda: plain(make=lambda: nn.LSTM(3, 4)),
    "missing": lambda: plain(without("steps")),
    "unexpected": lambda: plain(updated(more=torch.ones(1))),
}


@pytest.mark.parametrize("what", LEFT)
def test_left_to_pytorch(what: str) -> None:
    check(LEFT[what], native=False, assign=True)


@pytest.mark.parametrize("change", [without("steps", "norm.weight"), updated(more=torch.ones(1))])
def test_names_that_one_side_has(change: Callable[[Any], None]) -> None:
    check(lambda: plain(change), native=True, assign=True, strict=False)


def test_an_entry_that_another_attribute_hides() -> None:
    """nn.Module's ``__setattr__`` takes the name away from whoever else has it."""

    def make() -> Made:
        model, state = plain()
        model.first.__dict__["weight"] = 3
        model.norm._modules["bias"] = nn.ReLU()
        return model, state

    check(make, native=False, assign=True)


def test_a_method_of_the_instance_registers() -> None:
    def make() -> Made:
        model, state = plain()
        register = model.first.register_parameter
        model.first.register_parameter = lambda *a: (model.calls.append(a[0]), register(*a))[1]
        return model, state

    check(make, native=False, assign=True)


def test_hooks_on_registration_are_called() -> None:
    seen: list[str] = []
    hooks = [
        torch_module.register_module_parameter_registration_hook(lambda m, name, p: seen.append(name)),
        torch_module.register_module_buffer_registration_hook(lambda m, name, b: seen.append(name)),
    ]
    try:
        model, state = plain()
        seen.clear()
        PYTORCHS(model, state, assign=True)
        theirs = list(seen)
        model, state = plain()
        seen.clear()
        with pyparam.installed():
            model.load_state_dict(state, assign=True)
    finally:
        for hook in hooks:
            hook.remove()
    assert seen == theirs != []


def test_the_tensors_become_the_models_own_and_the_old_ones_go() -> None:
    model, state = plain(parameters_of)
    state["first.weight"] = state["first.weight"].detach()
    old = [weakref.ref(p) for p in model.parameters()]
    with pyparam.installed():
        model.load_state_dict(state, assign=True)
    assert [ref() for ref in old] == [None] * len(old)
    assert model.scale is state["scale"]
    assert model.scale.requires_grad
    assert model.frozen is state["frozen"]
    assert not model.frozen.requires_grad
    assert model.steps is state["steps"]
    weight = model.first.weight
    assert type(weight) is nn.Parameter
    assert weight.requires_grad
    assert weight.is_leaf
    assert weight.data_ptr() == state["first.weight"].data_ptr()


def test_nothing_has_changed_where_it_is_left_to_pytorch() -> None:
    model, state = plain(updated(steps=nn.Parameter(torch.ones(()))))
    before = list(model.state_dict(keep_vars=True).values())
    assert _C.load_state_dict(model, state, True, True) is None
    after = list(model.state_dict(keep_vars=True).values())
    assert all(a is b for a, b in zip(before, after, strict=True))
    assert "assign_to_params_buffers" not in state._metadata[""]


def test_what_is_true_is_left_in_the_metadata_as_it_is() -> None:
    model, state = plain()
    with pyparam.installed():
        model.load_state_dict(state, assign=1)  # type: ignore[arg-type]
    assert type(state._metadata[""]["assign_to_params_buffers"]) is int


@pytest.mark.parametrize("tied", [False, True])
def test_load_assigns(tied: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    state = fresh(model.state_dict())
    if tied:
        model[2].weight = model[0].weight
        state["2.weight"] = state["0.weight"]
    pyparam.load_(model, dict(state), assign=True)
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == {
        name: value.data_ptr() for name, value in state.items()
    }
    assert (model[2].weight is model[0].weight) == tied
