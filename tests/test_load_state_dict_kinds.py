"""The installed load_state_dict of modules with code of their own, lazy, parametrized and quantized ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from load_state_dict_twins import Made, Net, check, plain, updated, without
from torch import nn
from torch.nn.utils import parametrizations


@pytest.fixture(autouse=True)
def _warned_each_time():
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


class OwnLoad(nn.Linear):
    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        state_dict[prefix + "weight"] = state_dict[prefix + "weight"] * 2
        super()._load_from_state_dict(state_dict, prefix, *args)


class OwnExtraState(nn.Linear):
    def get_extra_state(self) -> Any:
        return torch.tensor([3.0])

    def set_extra_state(self, state: Any) -> None:
        with torch.no_grad():
            self.bias.fill_(float(state))


class OwnLoadStateDict(nn.Linear):
    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("asked of the root alone")


@pytest.mark.parametrize("kind", [OwnLoad, OwnExtraState, OwnLoadStateDict])
def test_classes_with_methods_of_their_own(kind: type[nn.Module]) -> None:
    make = lambda: nn.Sequential(nn.Linear(2, 2), kind(2, 2))  # type: ignore[call-arg]  # noqa: E731
    check(lambda: plain(make=make), native=kind is OwnLoadStateDict)
    check(lambda: plain(without("1.bias"), make), strict=False)
    if kind is OwnExtraState:
        check(lambda: plain(without("1._extra_state"), make), native=False)
        check(lambda: plain(without("1._extra_state"), make), native=False, strict=False)


def test_a_method_in_the_instance_counts() -> None:
    def make() -> Made:
        model, state = plain()
        original = model.first._load_from_state_dict
        model.first._load_from_state_dict = lambda *args: (model.calls.append(args[1]), original(*args))[1]
        return model, state

    check(make, native=False)


def quantized() -> nn.Module:
    torch.backends.quantized.engine = (
        "qnnpack" if "qnnpack" in torch.backends.quantized.supported_engines else "fbgemm"
    )
    return nn.Sequential(torch.ao.nn.quantized.Linear(3, 2), nn.Linear(2, 2))


KINDS: dict[str, Callable[[], nn.Module]] = {
    "parametrized": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3)), nn.Linear(3, 3)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(3, 3)),
    "recurrent": lambda: nn.LSTM(3, 4, num_layers=2),
    "attention": lambda: nn.TransformerEncoderLayer(8, 2, 16),
    "double": lambda: Net().double(),
    "half": lambda: Net().half(),
    "on meta": lambda: nn.Linear(3, 3, device="meta"),
    "containers": lambda: nn.ModuleDict(
        {"a": nn.ParameterList([torch.randn(2)]), "b": nn.ParameterDict({"c": torch.ones(1)})}
    ),
    "nothing": lambda: nn.Module(),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kind", list(KINDS))
def test_kinds_of_modules(kind: str, strict: bool) -> None:
    check(lambda: plain(make=KINDS[kind]), strict=strict)
    check(lambda: plain(updated(more__weight=torch.ones(1)), KINDS[kind]), strict=strict)
    check(lambda: (KINDS[kind](), {}), strict=strict)


def test_lazy_modules() -> None:
    def make() -> Made:
        state = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 3)).state_dict()
        return nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 3)), state

    check(make, native=False)
    check(lambda: (nn.Linear(3, 3), nn.LazyLinear(3).state_dict()), native=False)


@pytest.mark.filterwarnings("ignore")
def test_quantized_modules() -> None:
    check(lambda: (quantized(), quantized().state_dict()), native=False)


def test_swap_mode() -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        check(plain)
        check(plain, assign=True)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
