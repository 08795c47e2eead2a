"""Monitor(spectral=True): the largest singular value of each matrix, followed through a run."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from training import train

import pyparam


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 200), nn.ReLU(), nn.Linear(200, 150), nn.Linear(150, 3))


def truth(net: nn.Module) -> list[float]:
    return [
        float(torch.linalg.svdvals(p.detach().flatten(1))[0]) if p.dim() > 1 else float("nan")
        for p in net.parameters()
    ]


def test_it_follows_the_truth() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    seen: list[list[float]] = []
    monitor = pyparam.Monitor(net, every=2, spectral=True, on_record=lambda record: seen.append(truth(net)))
    monitor.attach(optimizer)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    train(net, optimizer, 40)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(seen) == 20
    for record, expected in zip(monitor.history, seen, strict=True):
        assert record.sigma_max.tolist() == pytest.approx(expected, rel=2e-3, nan_ok=True)
        there = ~record.sigma_max.isnan()
        assert there.tolist() == [True, False] * 3
        short = torch.tensor(expected, dtype=torch.float64) - record.sigma_max
        assert (short[there] <= record.sigma_error[there] + 1e-6).all()
        assert (short[there] >= -1e-6).all()
        assert record.stable_rank[0] == pytest.approx(
            float(record.weights.l2[0]) ** 2 / expected[0] ** 2, rel=5e-3
        )
    assert "  sigma_max      largest " in repr(record)
    assert record.scalars(by=None)["sigma_max/2.weight"] == record.sigma_max[2]
    assert "sigma_max/0.bias" not in record.scalars(by=None)
    for copied in (copy.copy(monitor), pickle.loads(pickle.dumps(pyparam.Monitor(net, spectral=True)))):
        assert copied._spectral is not None
    monitor.detach()
    assert not monitor._spectral._vectors


def test_what_is_no_matrix_of_numbers_and_another_shape() -> None:
    net = network()
    net.table = nn.Parameter(torch.ones(3, 4, dtype=torch.int32), requires_grad=False)
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    monitor = pyparam.Monitor(net, every=1, spectral=True, on_nonfinite="warn").attach(optimizer)
    train(net, optimizer, 2)
    assert monitor.history[0].weights.names[0] == "table"
    assert monitor.history[0].sigma_max[0].isnan()
    with torch.no_grad():
        net[2].weight[0, 0] = float("nan")
    with pytest.warns(RuntimeWarning, match="not finite"):
        optimizer.step()
    assert monitor.history[-1].sigma_max.isnan().tolist() == [True, False, True, True, True, False, True]
    with torch.no_grad():
        net[2].weight.fill_(1)
    net[0].weight.data = torch.eye(200, 6)
    optimizer.zero_grad()
    optimizer.step()
    found = monitor.history[-1].sigma_max
    assert float(found[1]) == pytest.approx(1)
    assert float(found[3]) == pytest.approx((200 * 150) ** 0.5, rel=1e-5)


def test_it_is_off_unless_asked_for() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    monitor = pyparam.Monitor(net, every=1).attach(optimizer)
    train(net, optimizer, 1)
    (record,) = monitor.history
    assert record.sigma_max is record.sigma_error is record.stable_rank is None
