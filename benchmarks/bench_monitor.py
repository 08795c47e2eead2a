"""What a Monitor costs a training loop: two equal small transformers, one of them watched, in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pairing import seconds
from torch import Tensor, nn

import pyparam

EVERY = 10
ROUNDS = 12


class Transformer(nn.Module):
    """Predicts the next token; 4 layers 256 wide, 4.2 million values."""

    def __init__(self, vocabulary: int = 2000, width: int = 256, layers: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.layers(self.embed(tokens)))
        return out


class Run:
    """A model, its optimizer and its own stream of batches."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Transformer()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-3)
        self.generator = torch.Generator().manual_seed(1)

    def steps(self) -> None:
        for _ in range(EVERY):
            tokens = torch.randint(2000, (8, 65), generator=self.generator)
            self.optimizer.zero_grad()
            out = self.model(tokens[:, :-1])
            nn.functional.cross_entropy(out.flatten(0, 1), tokens[:, 1:].flatten()).backward()
            self.optimizer.step()


class Logger:
    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.last = metrics


def all_of_it(logger: Logger) -> dict[str, Any]:
    """Spectra, rules, and a chart a role."""
    return {
        "spectral": True,
        "alarms": pyparam.DEFAULT_RULES,
        "on_alarm": lambda alarm: None,
        "on_record": lambda record: pyparam.log(record, logger, by="role"),
    }


OPTIONS: dict[str, dict[str, Any]] = {
    "alone": {},
    "check every": {"check": "every"},
    "groups and spectra": all_of_it(Logger()),
    "groups, spectra and noise": {**all_of_it(Logger()), "noise": True},
}


def both_clocks(function: Callable[[], None]) -> tuple[float, float]:
    """Seconds on the wall, and those that this process was on a core: what others do moves them less."""
    wall, own = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - own


@pytest.mark.parametrize("what", OPTIONS)
def test_a_step_of_a_small_transformer(what: str) -> None:
    watched, peer = Run(), Run()
    monitor = pyparam.Monitor(watched.model, every=EVERY, **OPTIONS[what]).attach(watched.optimizer)
    watched.steps()
    peer.steps()
    times: dict[str, list[tuple[float, float]]] = {"watched": [], "peer": []}
    for i in range(ROUNDS):
        for name in ("watched", "peer") if i % 2 == 0 else ("peer", "watched"):
            times[name].append(both_clocks((watched if name == "watched" else peer).steps))
    monitor.detach()
    assert pyparam.fingerprint(watched.model) == pyparam.fingerprint(peer.model)
    assert len(monitor.history) == ROUNDS + 1

    told = []
    for clock, name in enumerate(("wall", "process")):
        paired = [a[clock] / b[clock] for a, b in zip(times["watched"], times["peer"], strict=True)]
        step = statistics.median(b[clock] for b in times["peer"]) / EVERY
        told.append(f"{statistics.median(paired) - 1:+.2%} of {step * 1e3:.1f} ms a step by {name} time")
    measured = statistics.median(record.seconds for record in monitor.history[1:])
    print(
        f"\nmonitor, every={EVERY}, {what}: {', '.join(told)}; a measured step {measured * 1e3:.1f} ms more"
    )


def test_a_step_that_is_not_measured(benchmark) -> None:
    """The two hooks alone, around a step that does nothing."""
    parameter = nn.Parameter(torch.zeros(1))
    plain, followed = torch.optim.SGD([parameter], 0.1), torch.optim.SGD([parameter], 0.1)
    monitor = pyparam.Monitor([parameter], every=10**9).attach(followed)
    followed.step()

    def many(optimizer: torch.optim.Optimizer) -> None:
        for _ in range(2000):
            optimizer.step()

    both = [(seconds(lambda: many(followed)), seconds(lambda: many(plain))) for _ in range(9)]
    cost = statistics.median(a - b for a, b in both) / 2000
    assert len(monitor.history) == 1
    print(f"\nmonitor, a step that is not measured: {cost * 1e6:.2f} µs")
    benchmark.pedantic(lambda: many(followed), rounds=3, iterations=1)
