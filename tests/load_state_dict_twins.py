"""A model and a state dict twice, for the installed load_state_dict beside PyTorch's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import pyparam
from pyparam._base.native import _C

PYTORCHS = nn.Module.load_state_dict

Made = tuple[nn.Module, Any]


def outcome(load: Callable[..., Any], model: nn.Module, state: Any, **options: Any) -> dict[str, Any]:
    told: list[Any] = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            keys = load(model, state, **options)
            told = [type(keys).__name__, keys.missing_keys, keys.unexpected_keys]
        except Exception as error:
            told = [type(error).__name__, str(error)]
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        "told": told,
        "warned": [str(w.message) for w in warned],
        "values": [
            (
                name,
                type(t).__name__,
                t.dtype,
                t.requires_grad,
                None if t.is_inference() else t._version,
                None if t.is_meta else t.tolist(),
            )
            for name, t in tensors
            if not nn.parameter.is_lazy(t) and not t.is_quantized
        ],
        "metadata": repr(getattr(state, "_metadata", None)),
        "calls": list(getattr(model, "calls", [])),
    }


def check(make: Callable[[], Made], *, native: bool | None = None, **options: Any) -> list[Any]:
    torch.manual_seed(0)
    model, state = make()
    theirs = outcome(PYTORCHS, model, state, **options)
    torch.manual_seed(0)
    model, state = make()
    if native is not None:
        probe, probed = make()
        found = _C.load_state_dict(
            probe, probed, bool(options.get("strict", True)), options.get("assign", False)
        )
        assert (found is not None) == native
    torch.manual_seed(0)
    model, state = make()
    with pyparam.installed():
        ours = outcome(type(model).load_state_dict, model, state, **options)
    assert ours == theirs
    told: list[Any] = ours["told"]
    return told


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.scale = nn.Parameter(torch.randn(()))
        self.frozen = nn.Parameter(torch.randn(2, 3), requires_grad=False)
        self.empty = nn.Parameter(torch.randn(0, 3))
        self.register_parameter("nothing", None)
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2)])
        self.shared = self.blocks[0]
        self.add_module("none", None)
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("temporary", torch.randn(2), persistent=False)


def fresh(state: Any) -> Any:
    """Other values under the same names."""
    for name, tensor in list(state.items()):
        state[name] = torch.randn_like(tensor) if tensor.is_floating_point() else tensor + 7
    return state


def plain(change: Callable[[Any], Any] = lambda state: None, make: Callable[[], nn.Module] = Net) -> Made:
    model = make()
    state = fresh(make().state_dict())
    changed = change(state)
    return model, state if changed is None else changed


def without(*names: str) -> Callable[[Any], None]:
    return lambda state: [state.pop(name) for name in names].clear()


def updated(**tensors: Any) -> Callable[[Any], None]:
    return lambda state: state.update({k.replace("__", "."): v for k, v in tensors.items()})
