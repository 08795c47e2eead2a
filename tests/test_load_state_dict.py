"""The installed load_state_dict beside PyTorch's own: what is loaded, what is returned, raised, warned and called.

Each case is run twice, on twins, once with each.
"""

from __future__ import annotations

import copy
import functools
import inspect
import random
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from load_state_dict_twins import PYTORCHS, Made, Net, check, fresh, plain, updated
from torch import Tensor, nn

import pyparam
from pyparam._base.native import _C


@pytest.fixture(autouse=True)
def _warned_each_time():
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


def test_all_keys_match() -> None:
    assert check(plain, native=True) == ["_IncompatibleKeys", [], []]
    check(lambda: plain(dict), native=True)  # no metadata: the norm's version is not known, and no matter
    check(lambda: plain(dict, lambda: nn.Linear(2, 2)), native=True)
    check(lambda: plain(lambda s: OrderedDict(reversed(s.items())), lambda: nn.Linear(2, 2)), native=True)
    for strict in (0, 1, None, "yes"):
        check(plain, native=True, strict=strict)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(4, 3, dtype=torch.float64),
        torch.randn(4, 3).half(),
        torch.arange(12).reshape(4, 3),
        torch.randn(3, 4).t(),
        torch.randn(4, 1).expand(4, 3),
        torch.randn(8, 6)[::2, ::2],
        nn.Parameter(torch.randn(4, 3)),
        torch.randn(4, 3, requires_grad=True) * 2,
        torch.ones(4, 3, dtype=torch.bool),
    ],
    ids=str,
)
def test_values_of_another_dtype_or_layout(tensor: Tensor) -> None:
    assert check(lambda: plain(updated(first__weight=tensor)), native=True)[1:] == [[], []]


def quantized_values() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.randn(4, 3), 0.1, 0, torch.quint8)


@pytest.mark.parametrize(
    "value",
    [
        torch.randn(3, 4),
        torch.randn(4),
        torch.randn(0, 3),
        torch.empty(4, 3, device="meta"),
        torch.randn(4, 3, dtype=torch.complex64),
        torch.randn(4, 3).to_sparse(),
        quantized_values(),
        torch.view_as_complex(torch.randn(4, 3, 2)).conj(),
        [[1.0]],
        None,
        "weight",
    ],
    ids=lambda v: type(v).__name__ + str(getattr(v, "shape", "")),
)
@pytest.mark.parametrize("strict", [True, False])
def test_values_that_do_not_fit_or_are_none(value: Any, strict: bool) -> None:
    check(lambda: plain(updated(first__weight=value)), native=False, strict=strict)


def test_a_number_from_a_state_dict_with_one_dimension() -> None:
    check(lambda: plain(updated(scale=torch.randn(1))), native=False)
    check(lambda: plain(updated(scale=torch.randn(1, 1))), native=False)


MISSES: dict[str, Callable[[Any], Any]] = {
    "missing": lambda s: (
        [s.pop(k) for k in ("norm.weight", "first.weight", "blocks.1.0.bias", "steps")] and s
    ),
    "unexpected": updated(
        zzz=torch.ones(1),
        first__more=torch.ones(1),
        first__weight__data=torch.ones(1),
        aaa__b__c=torch.ones(1),
    ),
    "below a module that is None": updated(none__weight=torch.ones(1), none=torch.ones(1)),
    "of a parameter that is None": updated(nothing=torch.ones(1)),
    "a buffer that is not persistent": updated(temporary=torch.ones(2)),
    "extra states": updated(
        zz=torch.ones(1),
        _extra_state=torch.ones(1),
        blocks__0___extra_state=torch.ones(1),
        blocks__x=torch.ones(1),
    ),
    "empty parts": updated(
        **{"": torch.ones(1), "__first": torch.ones(1), "first__": torch.ones(1), "a____b": 1}
    ),
    "both": lambda s: [s.pop("norm.bias"), s.pop("scale"), s.update(zzz=1, blocks=2, shared=3)] and s,
    "nothing": lambda s: s.clear(),
    "other letters": lambda s: s.update({"größe": torch.ones(1), "first.größe": torch.ones(1)}),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("change", list(MISSES))
def test_missing_and_unexpected_keys_in_pytorchs_order(change: str, strict: bool) -> None:
    told = check(lambda: plain(MISSES[change]), native=not strict, strict=strict)
    assert told[0] == ("RuntimeError" if strict else "_IncompatibleKeys")


@pytest.mark.parametrize("version", [None, 0, 1, 2, 3, "2", True])
def test_versions_of_norms(version: Any) -> None:
    def change(state: Any) -> None:
        for name in ("norm", "blocks"):
            if version is None:
                state._metadata[name].pop("version")
            else:
                state._metadata[name]["version"] = version
        state.pop("norm.num_batches_tracked")

    for strict in (True, False):
        check(lambda: plain(change), strict=strict)
    instance = lambda: nn.Sequential(nn.InstanceNorm1d(3, affine=True))  # noqa: E731
    check(lambda: plain(lambda s: s._metadata["0"].update(version=1), instance), native=True)
    check(lambda: plain(make=instance), native=True)


@pytest.mark.parametrize("assign", [True, False])
def test_assign_and_what_it_leaves_in_the_metadata(assign: bool) -> None:
    check(plain, assign=assign)

    def twice() -> Made:
        model, state = plain()
        PYTORCHS(Net(), state, assign=True)  # the metadata now asks for tensors to be assigned
        return model, state

    check(twice, native=False)


def hooked(
    register: str, where: Callable[[Net], nn.Module], action: Callable[..., Any]
) -> Callable[[], Made]:
    def make() -> Made:
        model, state = plain()

        def hook(module: nn.Module, *args: Any) -> Any:
            model.calls.append((register, type(module).__name__, *map(repr, args)))
            return action(*args)

        getattr(where(model), register)(hook)
        return model, state

    return make


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("where", [lambda m: m, lambda m: m.blocks[1], lambda m: m.blocks[0][0]])
def test_hooks(where: Callable[[Net], nn.Module], strict: bool) -> None:
    register = "register_load_state_dict_pre_hook"
    check(hooked(register, where, lambda *args: None), native=False, strict=strict)

    def rename(state: Any, prefix: str, *args: Any) -> None:
        for key in [k for k in state if k.endswith("weight")]:
            state[key.replace("weight", "w")] = state.pop(key)

    check(hooked(register, where, rename), native=False, strict=strict)
    register = "register_load_state_dict_post_hook"
    check(hooked(register, where, lambda keys: keys.missing_keys.append("mine")), native=False, strict=strict)
    check(hooked(register, where, lambda keys: keys), native=False, strict=strict)


class Mapped(dict):  # type: ignore[type-arg]
    pass


def test_other_mappings_and_what_is_none() -> None:
    for state in (3, "", None, [("weight", torch.ones(2, 2))]):
        told = check(lambda state=state: (nn.Linear(2, 2), state))
        assert told[0] == "TypeError"
    check(lambda: plain(Mapped, lambda: nn.Linear(2, 2)), native=False)
    check(lambda: plain(lambda s: {1: torch.ones(1), **s}, lambda: nn.Linear(2, 2)), native=False)


def test_names_with_dots_are_pytorchs_affair() -> None:
    def make() -> Made:
        model, _ = plain()
        model._modules["a.b"] = nn.Linear(1, 1)
        model.first._parameters["c.d"] = nn.Parameter(torch.ones(1))
        return model, fresh(copy.deepcopy(model).state_dict())

    for strict in (True, False):
        check(make, native=False, strict=strict)


def test_targets_that_share_memory_are_written_in_order() -> None:
    def make() -> Made:
        net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
        net[1].weight = net[0].weight
        net[2].weight = nn.Parameter(net[0].weight.detach().t())
        state = fresh(copy.deepcopy(net).state_dict())
        return net, state

    check(make, native=True)

    def own() -> Made:  # the sources are the targets, in another order
        net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        state = net.state_dict()
        state["0.weight"], state["1.weight"] = state["1.weight"], state["0.weight"]
        return net, state

    check(own, native=True)


def test_targets_that_cannot_be_written_plainly() -> None:
    def expanded() -> Made:
        net = nn.Linear(2, 2)
        net.weight = nn.Parameter(torch.ones(1, 2).expand(2, 2))
        return net, nn.Linear(2, 2).state_dict()

    check(expanded, native=False)

    def inference() -> Made:
        with torch.inference_mode():
            net = nn.Linear(2, 2)
        return net, nn.Linear(2, 2).state_dict()

    check(inference, native=False)

    def freed() -> Made:
        net, state = nn.Linear(2, 2), nn.Linear(2, 2).state_dict()
        net.bias.untyped_storage().resize_(0)
        return net, state

    model, state = freed()
    assert _C.load_state_dict(model, state, True, False) is None


def test_modes_see_what_pytorch_does() -> None:
    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    listed = []
    for install in (False, True):
        seen: list[str] = []
        model, state = plain(make=lambda: nn.Linear(2, 2))
        with pyparam.installed() if install else warnings.catch_warnings(), Watch():
            model.load_state_dict(state)
        listed.append(seen)
    assert listed[0] == listed[1]
    assert listed[0]
    with pyparam.installed(), torch.inference_mode():
        net = nn.Linear(2, 2)
        net.load_state_dict(net.state_dict())


def random_module(chance: random.Random, depth: int) -> nn.Module:
    if depth == 0 or chance.random() < 0.2:
        return chance.choice([lambda: nn.Linear(2, 3), lambda: nn.BatchNorm1d(3), nn.ReLU, nn.Identity])()
    made = nn.Module()
    if chance.random() < 0.5:
        made.register_parameter("p", nn.Parameter(torch.randn(2)) if chance.random() < 0.7 else None)
    if chance.random() < 0.5:
        made.register_buffer("b", torch.randn(2), persistent=chance.random() < 0.6)
    for name in chance.sample(["a", "b_", "layer", "0", "1"], chance.randint(0, 4)):
        made.add_module(name, None if chance.random() < 0.1 else random_module(chance, depth - 1))
    return made


def random_case(seed: int) -> Made:
    chance = random.Random(seed)
    model = random_module(chance, 3)
    state = fresh(copy.deepcopy(model).state_dict())
    for name in list(state):
        if chance.random() < 0.1:
            del state[name]
        elif chance.random() < 0.03:
            state[name] = torch.randn(9)
        elif chance.random() < 0.1:
            state.move_to_end(name)
        if chance.random() < 0.1:
            parts = name.split(".")
            parts.insert(chance.randint(0, len(parts)), chance.choice(["a", "p", "x", "", "_extra_state"]))
            state.setdefault(".".join(parts), torch.randn(1))
    return model, state


@pytest.mark.parametrize("strict", [True, False])
def test_random_models_and_states(strict: bool) -> None:
    """Names dropped, added, misshapen and reordered at random."""
    for seed in range(150):
        check(functools.partial(random_case, seed), strict=strict)


def test_the_signature_is_pytorchs() -> None:
    signature = inspect.signature(PYTORCHS)
    with pyparam.installed():
        assert nn.Module.load_state_dict is not PYTORCHS
        assert inspect.signature(nn.Module.load_state_dict) == signature
        net, state = plain(make=lambda: nn.Linear(2, 2))
        assert net.load_state_dict(state, True, False).missing_keys == []
        assert net.load_state_dict(state_dict=state).unexpected_keys == []
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'state_dict'"):
            net.load_state_dict()  # type: ignore[call-arg]
    assert nn.Module.load_state_dict is PYTORCHS
