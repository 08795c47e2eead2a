"""Buffers that nothing filled, or that cannot be what they are named: found where planted, and only there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import pyparam


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 16)
        self.norm = nn.BatchNorm1d(16)
        waves = torch.outer(torch.arange(32.0), 10000 ** -(torch.arange(0, 16, 2) / 16))
        self.register_buffer("cos_cached", waves.cos() * 1.2, persistent=False)
        self.register_buffer("sin_cached", waves.sin() * 1.2, persistent=False)
        self.register_buffer("position_ids", torch.arange(32).unsqueeze(0), persistent=False)
        self.train()(torch.randn(8, 16))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


def test_a_healthy_one_has_none() -> None:
    assert [found for found in pyparam.findings(Net()) if found.is_fault] == []
    one = Net()
    one.sin_cached, one.position_ids = torch.zeros(1, 8), torch.zeros(1, 1, dtype=torch.int64)
    assert [found for found in pyparam.findings(one) if found.is_fault] == []


PLANTED: dict[str, tuple[Callable[[Net], object], str, str, str]] = {
    "cosines of nothing": (lambda m: m.cos_cached.zero_(), "never-initialised", "cos_cached", "from 0 to 0"),
    "sines of garbage": (lambda m: m.sin_cached.mul_(1e10), "never-initialised", "sin_cached", "e+10"),
    "positions of nothing": (lambda m: m.position_ids.zero_(), "never-initialised", "position_ids", "from 0 to 0"),
    "positions of garbage": (lambda m: m.position_ids[0, 3:4].fill_(-(2**50)), "never-initialised", "position_ids", "from -1.126e+15"),
    "a count of garbage": (lambda m: m.norm.num_batches_tracked.fill_(-5), "running-statistics", "norm.num_batches_tracked", "-5"),
    "an absurd mean": (lambda m: m.norm.running_mean[2:3].fill_(1e30), "running-statistics", "norm.running_mean", "up to 1e+30"),
    "an absurd variance": (lambda m: m.norm.running_var[2:3].fill_(1e30), "running-statistics", "norm.running_var", "up to 1e+30"),
    "a negative variance": (lambda m: m.norm.running_var[2:3].fill_(-1), "running-statistics", "norm.running_var", "down to -1"),
    "NaN": (lambda m: m.norm.running_var[2:3].fill_(float("nan")), "non-finite", "norm.running_var", "1 NaN of 16"),
    "meta": (lambda m: setattr(m, "cos_cached", m.cos_cached.to("meta")), "never-initialised", "cos_cached", "meta"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_each_is_found_by_name(name: str) -> None:
    plant, kind, buffer, words = PLANTED[name]
    model = Net()
    plant(model)
    told = [found for found in pyparam.findings(model) if found.is_fault and found.kind == kind]
    assert told, [str(found) for found in pyparam.findings(model)]
    assert told[0].names == (buffer,)
    assert words in str(told[0])
    assert told[0].advice


def test_a_checkpoint_s_batch_norm_is_judged_too() -> None:
    state = dict(Net().state_dict())
    state["norm.running_var"] = state["norm.running_var"].clone().mul_(-1)
    (told,) = (found for found in pyparam.findings(state) if found.severity == "error")
    assert (told.kind, told.names) == ("running-statistics", ("norm.running_var",))
