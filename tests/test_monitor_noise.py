"""Gradient noise from Adam's moments, against gradients of a known mean and covariance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import pyparam
from pyparam import Monitor


def watched(optimizer_of, steps: int, signal: float, noise: float, every: int = 40) -> Monitor:
    """Gradients of mean ``signal`` and deviation ``noise`` in each of 20,000 values."""
    torch.manual_seed(0)
    net = nn.ParameterDict({"a": torch.ones(20_000), "b": torch.ones(20_000)})
    optimizer = optimizer_of(net.parameters())
    monitor = Monitor(net, every=every, noise=True).attach(optimizer)
    for _ in range(steps):
        for name, parameter in net.items():
            scale = noise if name == "a" else 10 * noise
            parameter.grad = signal + scale * torch.randn(20_000)
        optimizer.step()
    return monitor


@pytest.mark.parametrize(
    "kind", [torch.optim.AdamW, torch.optim.NAdam, lambda p: torch.optim.Adam(p, betas=(0.5, 0.99))]
)
@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_it_is_trace_over_squared_mean(kind, noise: float) -> None:
    record = watched(kind, 81, 1.0, noise).history[-1]
    variances = torch.tensor([noise**2, 100 * noise**2], dtype=torch.float64)
    # Estimates from 20,000 values over some 19 steps, or 3.
    torch.testing.assert_close(record.gradient_variance, 20_000 * variances, rtol=0.1, atol=0)
    torch.testing.assert_close(record.gradient_noise, variances, rtol=0.1, atol=0)
    told = record.scalars(None)
    both = float(record.gradient_variance.sum() / record.gradient_signal.sum())
    assert told["noise/total"] == pytest.approx(both)
    assert told["noise/a"] == pytest.approx(float(record.gradient_noise[0]))


def test_what_noise_hides_and_what_is_not_known() -> None:
    hidden = watched(torch.optim.AdamW, 41, 0.0, 1.0).history
    assert hidden[0].gradient_noise.isnan().all()  # one step tells nothing
    assert not (hidden[1].gradient_noise < 100).any()
    assert "noise/total" not in hidden[0].scalars()
    plain = watched(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), 2, 1.0, 1.0, every=1).history[-1]
    assert plain.gradient_noise.isnan().all()
    net = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    monitor = Monitor(net).attach(optimizer)
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert monitor.history[0].gradient_noise is None


def test_steps_without_noise_have_none() -> None:
    record = watched(torch.optim.AdamW, 41, 1.0, 0.0).history[-1]
    assert float(record.gradient_noise.max()) < 1e-4


def test_it_is_drawn() -> None:
    figure = pyparam.plot(watched(torch.optim.AdamW, 81, 1.0, 1.0, every=10), "heat")
    assert "gradient noise, in batches" in [axes.get_title(loc="left") for axes in figure.axes]
    assert math.isfinite(figure.axes[0].get_position().x0)
