"""Measuring beside what people do without it. Run under pytest; nothing is asserted about time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import drawn, mixture
from pairing import versus
from torch import Tensor

import pyparam
from pyparam._sources import table_of


def eight(tensors: list[Tensor]) -> Tensor:
    """The eight statistics, an op at a time."""
    rows = [
        torch.stack(
            [
                x.min(),
                x.max(),
                x.mean(),
                x.std(),
                x.square().mean().sqrt(),
                x.abs().sum(),
                x.norm(),
                x.abs().max(),
            ]
        )
        for x in tensors
    ]
    return torch.stack(rows)


def of_eight(stats: pyparam.Stats) -> Tensor:
    return stats._values[:-1, :8]


@pytest.fixture(scope="module")
def large() -> list[Tensor]:
    """1.6 GB of float32 in 24 tensors."""
    return [drawn(16_666_667, std=0.02) for _ in range(24)]


def test_all_statistics_float32(benchmark: Any, large: list[Tensor]) -> None:
    table = table_of(large)
    torch.testing.assert_close(of_eight(pyparam.measure(table)), eight(large).double(), rtol=1e-3, atol=1e-4)
    versus(benchmark, lambda: pyparam.measure(table), lambda: eight(large), rounds=3, floor=100)


def test_all_statistics_at_the_speed_of_a_sum(benchmark: Any) -> None:
    whole = drawn(400_000_000, std=0.02)
    tensors = list(whole.split(16_666_667))
    table = table_of(tensors)
    assert pyparam.measure(table).total.mean == pytest.approx(whole.sum().item() / whole.numel(), abs=1e-8)
    versus(benchmark, lambda: pyparam.measure(table), whole.sum, rounds=15, floor=0.8)


def test_all_statistics_bfloat16(benchmark: Any, large: list[Tensor]) -> None:
    tensors = [x.bfloat16() for x in large]
    table = table_of(tensors)
    # What PyTorch answers in bfloat16 has two digits.
    torch.testing.assert_close(
        of_eight(pyparam.measure(table)), eight(tensors).double(), rtol=2e-2, atol=1e-3
    )
    versus(benchmark, lambda: pyparam.measure(table), lambda: eight(tensors), rounds=3, floor=100)


def four_items(tensors: list[Tensor]) -> list[list[float]]:
    return [[x.min().item(), x.max().item(), x.mean().item(), x.std().item()] for x in tensors]


def test_a_mixture_of_tiny_parameters(benchmark: Any) -> None:
    table = table_of(mixture())
    tensors = [t.detach() for t in table.tensors]
    ours = pyparam.measure(table)._values[:-1, :4]
    theirs = torch.tensor(four_items(tensors), dtype=torch.float64)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, equal_nan=True)
    versus(benchmark, lambda: pyparam.measure(table), lambda: four_items(tensors), rounds=5, floor=100)


def test_with_a_histogram(benchmark: Any) -> None:
    x = torch.empty(50_000_000).normal_(std=0.02)
    table = table_of([x])
    stats = pyparam.measure(table, histogram=True)
    lowest, highest = stats[0].min, stats[0].max
    found = stats.histogram()
    assert found.counts.sum() == x.numel()
    # Below zero, counted both ways.
    assert found.counts[found.upper <= 0].sum() == (x < 0).sum()
    versus(
        benchmark,
        lambda: pyparam.measure(table, histogram=True),
        lambda: torch.histc(x, 64, lowest, highest),
        rounds=7,
        floor=8,
    )


def test_five_quantiles(benchmark: Any) -> None:
    x = torch.empty(10_000_000).normal_(std=0.02)
    points = (0.01, 0.25, 0.5, 0.75, 0.99)
    table = table_of([x])
    exact = torch.stack([torch.quantile(x, q) for q in points]).double()
    torch.testing.assert_close(
        pyparam.measure(table, quantiles=points).quantiles[0], exact, rtol=2**-7, atol=1e-5
    )
    versus(
        benchmark,
        lambda: pyparam.measure(table, quantiles=points).quantiles,
        lambda: torch.quantile(x, 0.5),
        rounds=3,
        floor=30,
    )


@pytest.fixture(scope="module")
def with_gradients() -> Any:
    model = mixture()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model


def test_total_norm(benchmark: Any, with_gradients: Any) -> None:
    table = table_of(with_gradients)
    gradients = [p.grad for p in with_gradients.parameters()]
    torch.testing.assert_close(
        pyparam.total_norm(table, grad=True), torch.nn.utils.get_total_norm(gradients), rtol=1e-5, atol=0
    )
    versus(
        benchmark,
        lambda: pyparam.total_norm(table, grad=True),
        lambda: torch.nn.utils.get_total_norm(gradients),
        rounds=11,
        floor=15,
    )


@pytest.mark.parametrize("max_norm", [1.0, 1e9], ids=["clipped", "within"])
def test_clip_grad_norm(benchmark: Any, with_gradients: Any, max_norm: float) -> None:
    parameters = list(with_gradients.parameters())
    table = table_of(with_gradients)
    fresh = [torch.randn_like(p) for p in parameters]

    def restore() -> None:
        for parameter, gradient in zip(parameters, fresh, strict=True):
            parameter.grad = gradient.clone()

    restore()
    ours = pyparam.clip_grad_norm_(table, max_norm)
    left = [p.grad.clone() for p in parameters]
    restore()
    theirs = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    for mine, parameter in zip(left, parameters, strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-5, atol=1e-9)
    # A bound that every round's gradients are beyond, or none are.
    shrinking = iter(0.9**i for i in range(10**9))
    bound = (lambda: 0.5 * next(shrinking)) if max_norm == 1.0 else (lambda: max_norm)
    versus(
        benchmark,
        lambda: pyparam.clip_grad_norm_(table, bound()),
        lambda: torch.nn.utils.clip_grad_norm_(parameters, bound()),
        rounds=11,
        floor=5,
    )
