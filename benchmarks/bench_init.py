"""Fills against torch.nn.init, alternately in one run; bits compared over threads, shards and orders."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from models import mixture
from pairing import versus
from torch import Tensor, nn

from pyparam import init

MILLION = 1_000_000


def same_law(ours: Tensor, theirs: Tensor) -> None:
    """Means and deviations of both, on a part that is cheap to sum."""
    a, b = (t[: 10 * MILLION].double() for t in (ours, theirs))
    assert abs(a.mean() - b.mean()) < 2e-3
    assert abs(a.std() - b.std()) < 2e-3


JOBS: dict[str, tuple[int, torch.dtype, Callable[..., Tensor], Callable[..., Tensor], int, float]] = {
    "normal 200M float32": (200, torch.float32, init.normal_, nn.init.normal_, 5, 3.0),
    "uniform 200M float32": (200, torch.float32, init.uniform_, nn.init.uniform_, 5, 8.0),
    "truncated 100M float32": (100, torch.float32, init.trunc_normal_, nn.init.trunc_normal_, 1, 40.0),
    "normal 200M bfloat16": (200, torch.bfloat16, init.normal_, nn.init.normal_, 3, 4.0),
    "normal 100M float64": (100, torch.float64, init.normal_, nn.init.normal_, 3, 1.0),
}


@pytest.mark.parametrize("job", JOBS)
def test_large_fills(benchmark: Any, job: str) -> None:
    millions, dtype, ours, theirs, rounds, floor = JOBS[job]
    t = torch.empty(millions * MILLION, dtype=dtype)
    other = torch.empty(10 * MILLION, dtype=dtype)
    same_law(ours(t, seed=0, stream="weight"), theirs(other))
    versus(benchmark, lambda: ours(t, seed=0, stream="weight"), lambda: theirs(t), rounds=rounds, floor=floor)


def test_kaiming_over_the_mixture(benchmark: Any) -> None:
    model = mixture()
    rules = {"*norm*": "keep", "*": init.kaiming_normal_}

    def ours() -> init.Initialized:
        return init.initialize_(model, rules, seed=0)

    def theirs() -> None:
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter)

    report = ours()
    assert len(report) == 47_398
    for line in list(report)[::997]:
        assert line.wanted_std is None or abs(line.std - line.wanted_std) < 0.5 * line.wanted_std
    versus(benchmark, ours, theirs, rounds=7, floor=8.0)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_identical_bits(benchmark: Any, threads: Callable[[int], None]) -> None:
    """One thread or two, whole or in 7 shards, walked in any order."""
    model = mixture(layers=2, experts=16)
    names = [name for name, _ in model.named_parameters()]
    rules = {"*norm*": init.ones_, "*": init.kaiming_normal_}
    fill = functools.partial(init.initialize_, rules=rules, seed=0)
    fill(model)
    expected = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for count in (1, 2):
        threads(count)
        fill(model)
        assert all(torch.equal(p, expected[name]) for name, p in model.named_parameters())
    backwards = {name: torch.empty_like(expected[name]) for name in reversed(names)}
    fill(backwards)
    assert all(torch.equal(backwards[name], expected[name]) for name in names)
    whole = init.normal_(torch.empty(7_000, 1_000), seed=0, stream="weight")
    shards = [
        init.normal_(
            torch.empty(1_000, 1_000), seed=0, stream="weight", shape=(7_000, 1_000), offset=(k * 1_000, 0)
        )
        for k in range(7)
    ]
    assert torch.equal(torch.cat(shards), whole)
    benchmark.pedantic(lambda: fill(model), rounds=3)
