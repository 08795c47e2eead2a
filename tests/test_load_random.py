"""Random models and random state dicts: load_state_dict natively is PyTorch's, and load_ agrees where it succeeds."""

from __future__ import annotations

import copy
import random
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import pyparam

pytestmark = pytest.mark.filterwarnings("ignore")


class Extra(nn.Module):
    """With an extra state, a buffer that is saved and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("passing", torch.zeros(2), persistent=False)
        self.register_parameter("absent", None)
        self.told: Any = 0

    def get_extra_state(self) -> Any:
        return self.told

    def set_extra_state(self, state: Any) -> None:
        self.told = state


class Renaming(nn.Linear):
    """Loads what an older version of it saved."""

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        if f"{prefix}w" in state_dict:
            state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}w")
        super()._load_from_state_dict(state_dict, prefix, *rest)


def scaled(module: nn.Module, state: Any, prefix: str, *rest: Any) -> None:
    if f"{prefix}weight" in state:
        state[f"{prefix}weight"] = state[f"{prefix}weight"] * 2


def hooked() -> nn.Module:
    made = nn.Linear(2, 3)
    made.register_load_state_dict_pre_hook(scaled)
    return made


LEAVES: list[Callable[[], nn.Module]] = [
    lambda: nn.Linear(2, 3),
    lambda: nn.Linear(3, 2, bias=False),
    lambda: nn.BatchNorm1d(3),
    lambda: nn.BatchNorm1d(2, track_running_stats=False),
    lambda: nn.Embedding(4, 2).half(),
    lambda: nn.ParameterDict({"a": nn.Parameter(torch.ones(2)), "b": nn.Parameter(torch.ones(()))}),
    lambda: nn.ParameterList([nn.Parameter(torch.ones(0, 3)), nn.Parameter(torch.ones(2).double())]),
    lambda: nn.ReLU(),
    Extra,
]
ODD: list[Callable[[], nn.Module]] = [
    lambda: Renaming(2, 2),
    hooked,
    lambda: parametrizations.weight_norm(nn.Linear(2, 3)),
    lambda: nn.LazyLinear(3),
]


def random_model(chance: random.Random, depth: int = 3) -> nn.Module:
    if depth == 0 or chance.random() < 0.25:
        return chance.choice(ODD if chance.random() < 0.15 else LEAVES)()
    children = [random_model(chance, depth - 1) for _ in range(chance.randrange(1, 4))]
    if chance.random() < 0.2:
        children.append(chance.choice(children))  # a module at two places
    made = nn.Sequential(*children)
    if chance.random() < 0.3:
        made.register_parameter("own", nn.Parameter(torch.zeros(2)))
    linears = [m for m in made.modules() if type(m) is nn.Linear and m.weight.shape == (3, 2)]
    if len(linears) > 1 and chance.random() < 0.5:
        linears[0].weight = linears[-1].weight
    return made


def random_state(model: nn.Module, chance: random.Random) -> Any:
    """The state of the model with other values, and some of the mistakes that state dicts have."""
    state: Any = OrderedDict(model.state_dict())
    seen: dict[int, Any] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor) and not nn.parameter.is_lazy(value):
            drawn = torch.randint(0, 9, value.shape).to(value.dtype)
            state[name] = seen.setdefault(id(value), drawn)
        elif isinstance(value, Tensor):
            state[name] = torch.ones(3, 2) if name.endswith("weight") else torch.ones(3)
        else:
            state[name] = chance.randrange(9)
    if chance.random() < 0.7:
        state._metadata = model.state_dict()._metadata
    for _ in range(chance.choice([0, 0, 0, 1, 1, 2, 3])):
        names = list(state)
        if not names:
            break
        name = chance.choice(names)
        value = state[name]
        kind = chance.randrange(8)
        if kind == 0:
            del state[name]
        elif kind == 1:
            state[chance.choice(["unknown", f"{name}.more", f"{name}x", "0.nothing", f"x.{name}"])] = (
                torch.ones(1)
            )
        elif kind == 2:
            state[name] = torch.ones(5, 5)
        elif kind == 3 and isinstance(value, Tensor):
            state[name] = value.detach().double()
        elif kind == 4:
            state[name] = chance.choice([3, None, [1.0], "text"])
        elif kind == 5:
            state.move_to_end(name)
        elif kind == 6 and isinstance(value, Tensor):
            state[name] = value.detach().reshape(1, *value.shape)
        elif kind == 7 and isinstance(value, Tensor):
            state[name] = nn.Parameter(value.detach().float()) if value.is_floating_point() else value.int()
    return state


def outcome(model: nn.Module, state: Any, **how: bool) -> tuple[str, Any]:
    try:
        keys = model.load_state_dict(state, **how)
    except Exception as error:
        return type(error).__name__, re.sub(r"0x[0-9a-f]+", "0x", str(error))
    return "loaded", (list(keys.missing_keys), list(keys.unexpected_keys))


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        name: (type(value), value.dtype, tuple(value.shape), value.detach().clone())
        if isinstance(value, Tensor) and not nn.parameter.is_lazy(value)
        else (type(value), None if isinstance(value, Tensor) else value)
        for name, value in model.state_dict(keep_vars=True).items()
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def unequal(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [name for name in [*a, *b] if name not in a or name not in b or not same(a[name], b[name])]


def fill_ties(model: nn.Module, state: Any) -> None:
    """Gives a name that is lacking the value of one that the model ties to it, as load_ does."""
    for tie in pyparam.ties(model, buffers=True):
        for group in tie.classes("storage"):
            given = next((name for name in group if name in state), None)
            for name in group:
                if given is not None and name not in state:
                    state[name] = state[given]


class Case(NamedTuple):
    """Two copies of one model and of one state dict."""

    ours: nn.Module
    theirs: nn.Module
    given: Any
    given_to_them: Any
    how: dict[str, bool]


def cases(seed: int) -> Iterator[Case]:
    chance = random.Random(seed)
    torch.manual_seed(seed)
    model = random_model(chance)
    for _ in range(3):
        state = random_state(model, chance)
        how = {"strict": chance.random() < 0.6, "assign": chance.random() < 0.2}
        yield Case(*(copy.deepcopy(what) for what in (model, model, state, state)), how)


@pytest.mark.parametrize("seed", range(60))
def test_load_state_dict_under_install(seed: int) -> None:
    for ours, theirs, given, given_to_them, how in cases(seed):
        lazy = [n for n, v in ours.state_dict(keep_vars=True).items() if nn.parameter.is_lazy(v)]
        expected = outcome(theirs, given_to_them, **how)
        with pyparam.installed():
            got = outcome(ours, given, **how)
        assert got == expected
        differing = unequal(snapshot(ours), snapshot(theirs))
        # What was made for a lazy parameter before the error holds whatever was in memory.
        assert [n for n in differing if expected[0] == "loaded" or n not in lazy] == []
        assert unequal(dict(given), dict(given_to_them)) == [], "the state dict is the caller's"


@pytest.mark.parametrize("seed", range(1000, 1060))
def test_load(seed: int) -> None:
    """Where load_ fills a model, PyTorch does it alike; what PyTorch refuses, load_ does; then all is as it was."""
    for ours, theirs, given, given_to_them, how in cases(seed):
        before = snapshot(ours)
        members = [
            (members, dict(members)) for m in ours.modules() for members in (m._parameters, m._buffers)
        ]
        fill_ties(ours, given_to_them)
        expected = outcome(theirs, given_to_them, **how)
        refused = None
        try:
            keys = pyparam.load_(ours, given, **how)
        except (ValueError, TypeError) as error:
            refused = str(error)
        if refused is None:
            assert expected == ("loaded", (list(keys.missing_keys), list(keys.unexpected_keys)))
            assert unequal(snapshot(ours), snapshot(theirs)) == []
            continue
        assert refused.startswith("load_: ")
        assert unequal(snapshot(ours), before) == []
        for now, then in members:
            assert list(now) == list(then)
            assert all(now[name] is then[name] for name in then)
