"""What a checkpoint of a module would hold is found without work on each tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pyparam._sources.saved import saved


class Counted(TorchDispatchMode):
    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


class WithExtra(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"step": 3, "mean": torch.zeros(2, requires_grad=True)}

    def set_extra_state(self, state: Any) -> None: ...


def test_no_op_runs_where_the_names_are_those_of_a_walk() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with Counted() as counted:
        found = saved(model)
    assert counted.calls == 0
    assert sorted(found.table.names) == sorted(model.state_dict())


def test_what_stands_beside_parameters_is_found_and_nothing_asks_for_gradients() -> None:
    model = WithExtra(3, 4)
    found = saved(model)
    assert found.values == {"_extra_state.step": 3}
    tensors = dict(zip(found.table.names, found.table.tensors, strict=True))
    assert sorted(tensors) == ["_extra_state.mean", "bias", "weight"]
    assert not any(tensor.requires_grad for tensor in tensors.values())
    assert tensors["weight"].data_ptr() == model.weight.data_ptr()
