"""A Monitor's rules: each names what it is made for and keeps quiet in a healthy run; records as text and logs."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import pyparam
from pyparam import DEFAULT_RULES, Monitor


class Net(nn.Module):
    def __init__(self, layers: int = 6) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(layers))
        self.norm = nn.LayerNorm(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return self.norm(x)


class Run:
    def __init__(self, rules=DEFAULT_RULES, every: int = 5, make=torch.optim.AdamW, **options) -> None:
        torch.manual_seed(0)
        self.net = Net()
        self.optimizer = make(self.net.parameters(), 1e-3)
        self.told: list[pyparam.Alarm] = []
        self.monitor = Monitor(
            self.net, every=every, alarms=rules, on_alarm=self.told.append, history=1000, **options
        ).attach(self.optimizer)
        self.before = lambda: None

    def train(self, steps: int) -> None:
        for _ in range(steps):
            x = torch.randn(32, 16)
            self.optimizer.zero_grad()
            (self.net(x) - x.roll(1, 1)).square().mean().backward()
            self.before()
            self.optimizer.step()

    def rules(self) -> set[str]:
        return {alarm.rule for alarm in self.told}


def test_a_healthy_run_is_quiet() -> None:
    run = Run()
    run.train(150)
    assert run.told == run.monitor.alarms == []


def test_a_learning_rate_that_jumps() -> None:
    run = Run()
    run.train(51)
    run.optimizer.param_groups[0]["lr"] = 0.1
    run.train(5)
    assert {"learning rate × 5", "update × 5", "update/weight > 0.1"} <= run.rules()
    first = run.told[0]
    assert str(first) == "learning rate × 5 at step 51: group 0 (0.001 to 0.1)"


def test_a_layer_that_is_frozen_by_mistake() -> None:
    run = Run()
    run.train(41)
    run.net.layers[3].requires_grad_(False)
    run.train(40)
    (alarm,) = run.told
    assert (alarm.rule, alarm.names) == ("no update for 20 steps", ["layers.3.weight", "layers.3.bias"])
    assert alarm.step == 65
    assert alarm.details["layers.3.bias"] == "no update since step 45 or longer"
    run.train(100)
    assert run.rules() == {"no update for 20 steps", "no gradient for 100 steps"}


def test_a_gradient_that_is_cut_off() -> None:
    run = Run()
    run.train(10)
    run.before = lambda: run.net.layers[2].weight.grad.zero_()
    run.train(120)
    alarm = next(alarm for alarm in run.told if alarm.rule == "no gradient for 100 steps")
    assert alarm.names == ["layers.2.weight"]


def test_a_gradient_that_leaps() -> None:
    run = Run()
    run.train(41)

    def leap() -> None:
        run.net.layers[1].weight.grad.mul_(1000)

    run.before = leap
    run.train(5)
    alarm = next(alarm for alarm in run.told if alarm.rule == "gradient × 50")
    assert (alarm.names, alarm.step) == (["layers.1.weight"], 45)


def test_a_second_moment_that_is_lost() -> None:
    run = Run()
    run.train(100)
    run.optimizer.state[run.net.layers[4].weight]["exp_avg_sq"].zero_()
    run.train(6)
    alarm = next(alarm for alarm in run.told if alarm.rule == "second moment lost")
    assert (alarm.names, alarm.step) == (["layers.4.weight"], 100)
    assert run.monitor.history[-1].step == 105


def test_rules_of_one_s_own_and_single_ones() -> None:
    class Few:
        name = "few parameters"

        def __call__(self, record, earlier):
            if not earlier:
                yield "layers.0.weight", "it is the first"

    run = Run([Few(), pyparam.UpdateRatio(1e-9)])
    run.train(11)
    assert [(a.rule, a.step) for a in run.told] == [("few parameters", 0), ("update/weight > 1e-09", 0)]
    assert run.told[1].names == [f"layers.{i}.weight" for i in range(6)]
    assert "and 3 more of 14" in str(run.told[1])


def test_an_alarm_warns_at_the_line_that_stepped() -> None:
    run = Run([pyparam.UpdateRatio(1e-9)])
    run.monitor._alarms.on_alarm = "warn"
    with pytest.warns(
        RuntimeWarning, match="^Monitor: update/weight > 1e-09 at step 0: layers.0.weight"
    ) as told:
        run.train(1)
    assert told[0].filename == __file__


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_no_rule_fails_whatever_the_optimizer(make) -> None:
    run = Run(make=make, every=1)
    run.train(8)
    run.net.layers[0].weight.grad = None
    run.optimizer.step()
    run = Run(make=make, every=1, grad=False, updates=False)
    run.train(8)
    assert run.rules() <= {"learning rate × 5"}


def test_mistakes() -> None:
    with pytest.raises(TypeError, match=r"alarms holds a str; expected rules, such as UpdateRatio\(\)"):
        Monitor(Net(), alarms="no")
    with pytest.raises(TypeError, match="on_alarm is 3; expected 'warn' or a function of the Alarm"):
        Monitor(Net(), on_alarm=3)


# --- records --------------------------------------------------------------------------------------------------


def test_a_record_prints_in_ten_lines_with_names() -> None:
    run = Run()
    run.train(1)
    run.net.layers[3].bias.grad = None
    run.monitor.every = 1
    record = run.monitor.history[0]
    lines = repr(record).splitlines()
    assert len(lines) <= 10
    assert lines[0].startswith("Record of step 0: 14 parameters, ")
    assert lines[1].startswith("  weights        rms ")
    assert "largest norm.weight 0.99" in lines[1]
    assert lines[3].startswith("  update/weight  median ")
    assert lines[6] == "  learning rate  0.001"


def test_scalars_of_a_record() -> None:
    run = Run()
    run.train(1)
    record = run.monitor.history[0]
    told = record.scalars()
    assert {"weights/weight", "weights/bias", "gradients/weight", "updates/weight", "updates/total"} <= set(
        told
    )
    assert told["learning_rate/0"] == 1e-3
    assert told["nonfinite"] == 0
    assert told["gradients/total"] == pytest.approx(record.gradients.total.rms)
    moved = sum(float(n) ** 2 for n in record.update_norms) ** 0.5
    assert told["updates/total"] == pytest.approx(moved / record.weights.total.l2, rel=1e-9)
    assert "updates/layers.3.weight" in record.scalars(by=None)
    assert "weights/layers.3" in record.scalars(by="layer")


class Logger:
    def __init__(self) -> None:
        self.steps: list[int] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        assert all(isinstance(value, float) for value in metrics.values())
        assert "updates/total" in metrics or "run/updates/total" in metrics
        self.steps.append(step)


def test_records_and_monitors_are_logged() -> None:
    run = Run()
    run.train(11)
    logger, other = Logger(), Logger()
    pyparam.log(run.monitor.history[1], logger, prefix="run")
    assert logger.steps == [5]
    pyparam.log(run.monitor, other)
    run.train(5)
    pyparam.log(run.monitor, other)
    pyparam.log(run.monitor, other)
    assert other.steps == [0, 5, 10, 15]
    with pytest.raises(TypeError, match="log: expected a TensorBoard SummaryWriter or a wandb run"):
        pyparam.log(run.monitor.history[0], object())
    with pytest.raises(TypeError, match="log: Stats have no step of their own"):
        pyparam.log(run.monitor.history[0].weights, logger)


def test_on_record_sees_each() -> None:
    seen: list[int] = []
    run = Run((), on_record=lambda record: seen.append(record.step))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.train(11)
    assert seen == [0, 5, 10]
