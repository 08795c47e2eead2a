"""departures: planted change points are found with their step, and healthy noise has none."""

from __future__ import annotations

import math

import pytest
import torch
from faulty_training import Transformer, train
from torch import Tensor, nn

import pyparam
from pyparam._watch.course import off_course


def noisy(records: int, columns: int, seed: int, spread: float = 0.3) -> Tensor:
    """Norms that fall as a loss does and fluctuate log-normally."""
    generator = torch.Generator().manual_seed(seed)
    noise = spread * torch.randn(records, columns, generator=generator, dtype=torch.float64)
    fall = torch.linspace(0, -2, records, dtype=torch.float64).unsqueeze(1)
    return (noise + fall).exp()


@pytest.mark.parametrize("spread", [0.01, 0.1, 0.3, 0.5])
def test_healthy_noise_is_quiet(spread: float) -> None:
    for seed in range(10):
        off, _ = off_course(noisy(100, 200, seed, spread), stops=True)
        assert not off.any(), seed


def test_early_training_is_quiet() -> None:
    """A warm-up from nothing, and norms that fall by a hundred within the first records."""
    steps = torch.arange(100, dtype=torch.float64)
    rising = (steps + 1) / 30
    falling = 1 + 100 * torch.exp(-steps / 3)
    swinging = torch.exp(torch.sin(steps / 10))
    values = torch.stack((rising, falling, swinging), 1)
    values = values * noisy(100, 3, 0, 0.1) ** 0.5
    assert not off_course(values, stops=True)[0].any()


@pytest.mark.parametrize(("factor", "lasts"), [(40.0, 5), (1 / 400, 5), (25.0, 30), (1000.0, 1)])
@pytest.mark.parametrize("at", [8, 50, 95])
def test_a_planted_change_is_found_at_its_record(factor: float, lasts: int, at: int) -> None:
    for seed in range(5):
        values = noisy(100, 20, seed, 0.2)
        values[at : at + lasts, 7] *= factor
        off, factors = off_course(values, stops=True)
        began = off & ~torch.cat((off.new_zeros(1, 20), off[:-1]))
        # Of a change that became the course the way back is another.
        assert began[: at + max(10, lasts)].nonzero().tolist() == [[at, 7]]
        assert not began[:, [i for i in range(20) if i != 7]].any()
        assert float(factors[at, 7]) == pytest.approx(factor, rel=1.5) or factor < 1
        assert off[at : min(at + lasts, 100, at + 10), 7].all()
        assert not off[at + 10 : at + lasts, 7].any()


def test_a_single_value_off_by_little_is_noise() -> None:
    values = noisy(60, 3, 0, 0.1)
    values[30, 1] *= 12
    assert not off_course(values, stops=True)[0].any()
    values[31, 1] *= 12
    assert off_course(values, stops=True)[0].nonzero().tolist() == [[30, 1], [31, 1]]


def test_what_stops_and_what_is_not_finite() -> None:
    values = noisy(60, 5, 0, 0.1)
    values[30:, 0] = 0
    values[:, 1] = 0  # never anything there
    values[40, 2] = 0  # once, as of an expert that saw no token
    values[20:22, 3] = math.nan
    values[50:, 4] = math.inf  # nothing to be seen
    off, factors = off_course(values, stops=True)
    assert off[:, 0].nonzero().flatten().tolist() == list(range(30, 60))
    assert (factors[30:, 0] == 0).all()
    assert off[:, 3].nonzero().flatten().tolist() == [20, 21]
    assert factors[20:22, 3].isnan().all()
    assert off.any(0).tolist() == [True, False, False, True, False]
    assert not off_course(values[:, :1], stops=False)[0].any()


def test_experts_that_are_rarely_used_are_quiet() -> None:
    values = noisy(100, 50, 0, 0.3)
    values[torch.rand(100, 50, generator=torch.Generator().manual_seed(1)) < 0.2] = 0
    assert not off_course(values, stops=True)[0].any()


def test_five_faults_in_a_training_are_named_with_layer_and_step() -> None:
    torch.manual_seed(0)
    monitor, _, logger = train(Transformer(32, 4, 64), 64, length=17)
    found = pyparam.departures(monitor.history)
    told = [str(departure) for departure in found]
    frozen = tuple(name for name in monitor.history[0].weights.names if name.startswith("layers.3."))
    cut = ("layers.2.norm2.weight", "layers.2.norm2.bias", "layers.2.up.weight", "layers.2.up.bias")
    at = {(d.step, d.quantity): d for d in found}
    assert at[80, "learning rate"].most == pytest.approx(30)
    assert "learning rate × 30, until step 90" in told[0]
    assert at[100, "gradient norm"].names == at[100, "update norm"].names == frozen
    assert at[120, "gradient norm"].names == at[120, "update norm"].names == cut
    assert at[150, "update norm"].names == at[150, "sigma_max"].names == ("layers.1.up.weight",)
    assert {d.step for d in found} == {80, 100, 120, 150}
    assert (
        "layers.3 (12 parameters) left their course at step 100 (after step 90): gradient norm is zero"
        in told
    )
    assert any(
        t.startswith("layers.1.up.weight left its course at step 150 (after step 140): update norm × ")
        for t in told
    )
    # What overflows is told before the step; a moment that is lost by its own rule.
    bad = monitor.first_nonfinite
    assert bad is not None
    assert (bad.step, bad.when, bad.names) == (180, "before", ["layers.0.out.weight"])
    lost = next(alarm for alarm in monitor.alarms if alarm.rule == "second moment lost")
    assert (lost.step, lost.names) == (150, ["layers.1.up.weight"])
    # Groups and spectra were on.
    assert {"weights/qkv", "gradients/up", "updates/down", "sigma_max/head"} <= logger.charts


@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_training_has_none(seed: int) -> None:
    torch.manual_seed(seed)
    monitor, _, _ = train(Transformer(16, 2, 64), 64, length=9, at=None, seed=seed, every=5)
    assert pyparam.departures(monitor.history) == []
    assert monitor.alarms == []
    assert monitor.first_nonfinite is None


def test_schedules_are_no_departures() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=300)
    monitor = pyparam.Monitor(net, every=5).attach(optimizer)
    for _ in range(300):
        x = torch.randn(64, 8)
        optimizer.zero_grad()
        (net(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        schedule.step()
    assert [str(d) for d in pyparam.departures(monitor.history)] == []


def test_all_parameters_at_once_and_a_history_that_changes() -> None:
    torch.manual_seed(0)
    net = nn.Linear(8, 8)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    monitor = pyparam.Monitor(net, every=1, on_nonfinite="warn").attach(optimizer)
    for step in range(30):
        optimizer.zero_grad()
        net(torch.randn(64, 8)).square().mean().backward()
        if step >= 20:
            for parameter in net.parameters():
                parameter.grad.mul_(100)
        optimizer.step()
    texts = [str(d) for d in pyparam.departures(monitor.history)]
    assert texts[0].startswith("all 2 parameters left their course at step 20: gradient norm × ")
    net.extra = nn.Parameter(torch.ones(3))
    optimizer.zero_grad()
    net(torch.randn(64, 8)).square().mean().backward()
    optimizer.step()
    assert [str(d) for d in pyparam.departures(monitor.history)] == texts


def test_mistakes_and_nothing() -> None:
    assert pyparam.departures([]) == []
    with pytest.raises(TypeError, match="departures: the history holds a Stats; expected Records"):
        pyparam.departures([pyparam.measure(nn.Linear(2, 2))])
