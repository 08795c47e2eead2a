"""Steps between the measured ones that stand out are measured too, and others are not."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from training import backward, network, sgd

from pyparam import Monitor


def run(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int, before) -> list[int]:
    monitor = Monitor(net, every=20).attach(optimizer)
    for step in range(steps):
        before(step)
        optimizer.zero_grad()
        backward(net)
        optimizer.step()
    return [record.step for record in monitor.history]


def test_a_learning_rate_that_leaps_for_one_step() -> None:
    net = network()
    optimizer = sgd(net, 0.001)

    def before(step: int) -> None:
        optimizer.param_groups[0]["lr"] = 0.006 if step == 7 else 0.001

    assert run(net, optimizer, 30, before) == [0, 7, 20]


def test_schedules_and_rates_that_are_tensors() -> None:
    net = network()
    for rate in (
        lambda step: 1e-3 * min(1.0, step / 10),
        lambda step: torch.tensor(1.0 if step == 7 else 1e-3),
    ):
        optimizer = sgd(net, 0.001)

        def before(step: int, optimizer=optimizer, rate=rate) -> None:
            optimizer.param_groups[0]["lr"] = rate(step)

        assert run(net, optimizer, 19, before) == [0]


def test_a_layer_that_loses_its_gradient_and_one_that_gets_it() -> None:
    net = network()
    optimizer = sgd(net, 0.001)

    def before(step: int) -> None:
        if step == 7:
            net[0].requires_grad_(False)
        if step == 13:
            net[0].requires_grad_(True)

    assert run(net, optimizer, 30, before) == [0, 7, 13, 20]


def test_experts_that_are_idle_at_times_do_not_stand_out() -> None:
    net = network()
    optimizer = sgd(net, 0.001)

    def before(step: int) -> None:
        net[0].requires_grad_(step % 3 == 0)

    assert run(net, optimizer, 30, before) == [0, 20]


def test_ranks_measure_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    net = network()
    optimizer = sgd(net, 0.001)

    def before(step: int) -> None:
        optimizer.param_groups[0]["lr"] = 0.1 if step == 7 else 0.001

    assert run(net, optimizer, 10, before) == [0]
