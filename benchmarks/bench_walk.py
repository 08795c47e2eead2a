"""The access functions beside nn.Module's own methods: whole lists, one step, and the memory of a table."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from making import pairs_maker, state_maker
from models import MODELS
from pairing import seconds, versus
from torch import nn

import pyparam

ROUNDS = {"mixture": 15, "tree": 40, "chain": 200, "mlp": 3000}

JOBS: dict[str, tuple[Callable[[nn.Module], Any], Callable[[nn.Module], Any]]] = {
    "list(named_parameters)": (
        lambda m: list(pyparam.named_parameters(m)),
        lambda m: list(m.named_parameters()),
    ),
    "list(parameters)": (lambda m: list(pyparam.parameters(m)), lambda m: list(m.parameters())),
    "state_dict": (pyparam.state_dict, lambda m: m.state_dict()),
    "list(named_modules)": (lambda m: list(pyparam.named_modules(m)), lambda m: list(m.named_modules())),
    "walk": (pyparam.walk, lambda m: list(m.named_parameters())),
    "for in named_parameters": (
        lambda m: sum(1 for _ in pyparam.named_parameters(m)),
        lambda m: sum(1 for _ in m.named_parameters()),
    ),
}

FLOORS = {
    "list(named_parameters)": {"mixture": 5, "tree": 6, "chain": 25, "mlp": 4},
    "list(parameters)": {"mixture": 5, "tree": 7, "chain": 35, "mlp": 5},
    "state_dict": {"mixture": 5, "tree": 6, "chain": 10, "mlp": 3},
    "list(named_modules)": {"mixture": 4, "tree": 5, "chain": 25, "mlp": 4},
}


def comparable(result: Any) -> Any:
    """What must agree: names, and objects by identity; of a state dict, names, memory and metadata."""
    if isinstance(result, dict):
        return [(k, v.data_ptr(), v.shape) for k, v in result.items()], list(result._metadata.items())
    if isinstance(result, (int, pyparam.ParamTable)):
        return result if isinstance(result, int) else [(name, id(tensor)) for name, tensor in result]
    return [(item[0], id(item[1])) if isinstance(item, tuple) else id(item) for item in result]


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Iterator[tuple[str, nn.Module]]:
    built = MODELS[request.param]()
    # Or what else lives would say whether full collections, which take longer than the jobs, fall into a
    # side's time: PyTorch's state dict of the mixture takes three times as long with them.
    gc.collect()
    gc.freeze()
    yield request.param, built
    gc.unfreeze()


@pytest.mark.parametrize("job", list(JOBS))
def test_bulk(benchmark: Any, model: tuple[str, nn.Module], job: str) -> None:
    name, built = model
    ours, peer = JOBS[job]
    assert comparable(ours(built)) == comparable(peer(built))
    pair = versus(
        benchmark,
        lambda: ours(built),
        lambda: peer(built),
        rounds=ROUNDS[name],
        floor=FLOORS.get(job, {}).get(name),
    )
    print(f"\n{job}, {name}: {pair}")


LOADING_FLOORS = {"mixture": 15, "tree": 15, "chain": 30, "mlp": 5}


@pytest.mark.parametrize("assign", [False, True])
def test_load_state_dict(benchmark: Any, model: tuple[str, nn.Module], assign: bool) -> None:
    name, built = model
    state = built.state_dict()
    for key, tensor in state.items():
        state[key] = tensor.clone()
    peer = nn.Module.load_state_dict

    def ours() -> Any:
        with pyparam.installed():
            return built.load_state_dict(state, assign=assign)

    assert ours() == peer(built, state, assign=assign)
    pair = versus(
        benchmark,
        ours,
        lambda: peer(built, state, assign=assign),
        rounds={"mixture": 5}.get(name, ROUNDS[name]),
        floor=None if assign else LOADING_FLOORS[name],
    )
    print(f"\nload_state_dict, assign={assign}, {name}: {pair}")


MAKERS: dict[str, Callable[[nn.Module], Callable[[], Any]]] = {
    "state_dict": lambda m: state_maker(m.state_dict(keep_vars=True)),
    "list(named_parameters)": lambda m: pairs_maker(list(m.named_parameters())),
    "list(named_modules)": lambda m: pairs_maker(list(m.named_modules())),
}


@pytest.mark.parametrize("job", list(MAKERS))
def test_beside_a_loop_that_makes_the_same_objects(
    benchmark: Any, model: tuple[str, nn.Module], job: str
) -> None:
    """The peer walks nothing: see making.py. Aim: 1.3 times its time."""
    name, built = model
    ours, loop = JOBS[job][0], MAKERS[job](built)
    assert comparable(ours(built)) == comparable(loop())
    pair = versus(benchmark, lambda: ours(built), loop, rounds=ROUNDS[name], floor=1 / 1.3)
    print(f"\n{job} beside a loop that makes its objects, {name}: {pair}")


INDEX_FLOORS = {"mixture": 30, "tree": 100, "chain": 20, "mlp": 2}


def test_listing_an_unchanged_model_again(benchmark: Any, model: tuple[str, nn.Module]) -> None:
    """By dict watchers (CPython 3.12 and later) this takes no time; by version tags, a read a dict."""
    name, built = model
    params = pyparam.index(built)
    expected = dict(built.named_parameters())
    assert list(params.snapshot()) == list(expected)
    assert all(params.snapshot()[key] is value for key, value in expected.items())
    pair = versus(
        benchmark,
        params.snapshot,
        lambda: dict(built.named_parameters()),
        rounds=ROUNDS[name],
        floor=1000 if sys.version_info >= (3, 12) and name == "mixture" else INDEX_FLOORS[name],
    )
    print(f"\nthe index's listing, unchanged, {name}: {pair}")


def test_one_step_costs_the_same_on_every_model() -> None:
    times = {}
    for name in ("mixture", "mlp"):
        built = MODELS[name]()
        times[name] = sorted(seconds(lambda m=built: next(pyparam.parameters(m))) for _ in range(2000))[1000]
    print(f"\nnext(parameters(model)): {', '.join(f'{n} {t * 1e9:.0f} ns' for n, t in times.items())}")


MEMORY = """
import gc, resource, sys
sys.path.append(sys.argv[1])
from models import mixture
import pyparam
model = mixture()
gc.collect()
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
pyparam.walk(model)
before = resident()
tables = [pyparam.walk(model) for _ in range(20)]
print((resident() - before) / 20 / len(tables[0]))
"""


def test_memory_of_a_walk() -> None:
    """Bytes a parameter, the names (as keys) with them; the floor is 200 beyond the names."""
    out = subprocess.run(
        [sys.executable, "-c", MEMORY, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    print(f"\nmemory of a walk: {float(out.stdout):.0f} bytes a parameter")
