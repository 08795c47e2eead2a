"""Monitor: what it measures at an optimizer's steps, what it says of non-finite values, what it keeps alive."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from training import backward, network, sgd, train

import pyparam
from pyparam import Monitor, NonFiniteError

# --- what is measured -----------------------------------------------------------------------------------------


def test_records_have_weights_gradients_and_ratios() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=3).attach(optimizer)
    for step in range(7):
        optimizer.zero_grad()
        backward(net)
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        gradients = {name: p.grad.clone() for name, p in net.named_parameters()}
        optimizer.step()
        if step % 3 == 0:
            record = monitor.history[-1]
            assert (record.step, record.optimizer, record.grad_scale) == (step, 0, 1.0)
            assert record.weights.names == list(before)
            for i, (name, p) in enumerate(net.named_parameters()):
                assert record.weights[name].l2 == pytest.approx(p.norm().item(), rel=1e-6)
                assert record.gradients[name].l2 == pytest.approx(gradients[name].norm().item(), rel=1e-6)
                change = (p.detach() - before[name]).double().norm().item()
                assert record.update_norms[i].item() == pytest.approx(change, rel=1e-6)
                assert record.update_ratios[i].item() == pytest.approx(
                    change / before[name].double().norm().item(), rel=1e-6
                )
    assert [record.step for record in monitor.history] == [0, 3, 6]
    assert monitor.seconds == pytest.approx(sum(record.seconds for record in monitor.history))
    assert monitor.first_nonfinite is None


@pytest.mark.parametrize("check", ["measured", "every"])
def test_training_is_the_same_with_it(check) -> None:
    alone, watched = network(), network()
    train(alone, torch.optim.AdamW(alone.parameters()), 6)
    optimizer = torch.optim.AdamW(watched.parameters())
    Monitor(watched, every=2, check=check).attach(optimizer)
    train(watched, optimizer, 6)
    assert pyparam.fingerprint(alone) == pyparam.fingerprint(watched)


def test_the_history_is_bounded() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=1, history=3).attach(optimizer)
    train(net, optimizer, 5)
    assert [record.step for record in monitor.history] == [2, 3, 4]
    assert monitor.history[0].weights.names is monitor.history[2].weights.names


def test_the_buffer_is_reused_and_freed() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=1).attach(optimizer)
    train(net, optimizer, 1)
    (buffer,) = monitor._copies.buffers.values()
    assert buffer.numel() == sum(p.numel() for p in net.parameters())
    train(net, optimizer, 2)
    assert next(iter(monitor._copies.buffers.values())) is buffer
    monitor.detach()
    assert not monitor._copies.buffers


def test_options_leave_out_what_is_not_wanted() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=1, grad=False, updates=False).attach(optimizer)
    train(net, optimizer, 1)
    (record,) = monitor.history
    assert record.gradients is record.update_norms is record.update_ratios is None
    assert not monitor._copies.buffers
    with pytest.raises(ValueError, match="no histogram was counted"):
        record.weights.histogram()


def test_histograms_on_demand() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=1, histogram=True).attach(optimizer)
    train(net, optimizer, 1)
    assert int(monitor.history[0].weights.histogram("0.weight").counts.sum()) == 30
    assert int(monitor.history[0].gradients.histogram("0.weight").counts.sum()) == 30


def test_several_dtypes() -> None:
    net = network()
    net[2].to(torch.float64)
    optimizer = sgd(net)
    monitor = Monitor(net, every=1).attach(optimizer)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    (record,) = monitor.history
    sizes = torch.tensor([p.numel() for p in net.parameters()], dtype=torch.float64)
    torch.testing.assert_close(record.update_norms, 0.1 * sizes.sqrt(), rtol=1e-5, atol=0)


# --- the zoo --------------------------------------------------------------------------------------------------


def test_gradients_set_to_none_frozen_and_shared_parameters() -> None:
    net = network()
    net[0].bias.requires_grad_(False)
    net[1].tied = nn.Linear(5, 3)
    net[1].tied.weight = net[2].weight
    optimizer = sgd(net)
    monitor = Monitor(net, every=1).attach(optimizer)
    optimizer.zero_grad(set_to_none=True)
    optimizer.step()
    assert monitor.history[0].gradients.missing == [name for name, _ in net.named_parameters()]
    train(net, optimizer, 1)
    record = monitor.history[1]
    assert record.gradients.missing == ["0.bias", "1.tied.bias"]
    assert "1.tied.weight" in record.weights
    assert "2.weight" not in record.weights
    assert record.update_ratios[1] == 0


def test_parameters_that_come_and_are_replaced() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=1).attach(optimizer)
    train(net, optimizer, 1)
    net.append(nn.Linear(3, 2))
    optimizer.add_param_group({"params": net[3].parameters()})
    net[0].weight = nn.Parameter(torch.ones(5, 6))
    with pytest.warns(RuntimeWarning, match="'0.weight' was replaced in the model"):
        train(net, optimizer, 1)
    record = monitor.history[1]
    assert record.weights.names == [name for name, _ in net.named_parameters()]
    ratios = dict(zip(record.weights.names, record.update_ratios.tolist(), strict=True))
    assert ratios["0.weight"] == 0  # the optimizer still holds the parameter it was made with
    assert ratios["3.weight"] > 0


def test_sparse_gradients() -> None:
    net = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 1))
    optimizer = sgd(net)
    monitor = Monitor(net, every=1, check="every").attach(optimizer)
    net(torch.tensor([1, 1, 3])).sum().backward()
    optimizer.step()
    (record,) = monitor.history
    assert record.gradients["0.weight"].numel == 8
    assert record.gradients["0.weight"].l2 == pytest.approx(
        net[0].weight.grad.to_dense().norm().item(), rel=1e-6
    )
    monitor = Monitor(net, every=10**6, check="every").attach(optimizer, step=1)
    optimizer.step()
    net[0].weight.grad._values()[0] = math.inf
    with pytest.raises(NonFiniteError, match="the gradient of '0.weight' is not finite before step 2"):
        optimizer.step()


def test_lazy_parameters_are_left_out_until_they_are_there() -> None:
    net = nn.Sequential(nn.Linear(6, 5), nn.LazyLinear(3))
    optimizer = torch.optim.SGD(net[0].parameters(), 0.1)
    monitor = Monitor(net, every=1).attach(optimizer)
    optimizer.step()
    assert monitor.history[0].weights.names == ["0.weight", "0.bias"]
    train(net, optimizer, 1)
    assert len(monitor.history[1].weights) == 4


def test_a_closure_s_gradients_are_measured_after_the_step() -> None:
    net = network()
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=3)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = net(torch.ones(2, 6)).square().mean()
        loss.backward()
        return loss

    monitor = Monitor(net, every=1).attach(optimizer)
    optimizer.step(closure)
    record = monitor.history[0]
    assert record.gradients.names == record.weights.names
    assert record.gradients["2.bias"].l2 == pytest.approx(net[2].bias.grad.norm().item(), rel=1e-6)
    assert (record.update_norms > 0).all()


def test_a_step_that_a_grad_scaler_leaves_out_is_none() -> None:
    net = network()
    optimizer = sgd(net)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    monitor = Monitor(net, every=1, check="every").attach(optimizer)
    for bad in (False, True, False):
        optimizer.zero_grad()
        loss = net(torch.ones(2, 6)).square().mean()
        scaler.scale(loss * (math.inf if bad else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert [record.step for record in monitor.history] == [0, 1]


def test_a_fused_optimizer_under_a_grad_scaler() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, fused=True)
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        pytest.skip("this torch does not scale in fused steps")
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    monitor = Monitor(net, every=1).attach(optimizer)
    for factor in (1.0, math.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale(net(torch.ones(2, 6)).square().mean() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    assert [record.grad_scale for record in monitor.history] == [4.0, 2.0]
    assert monitor.first_nonfinite is None


def test_two_optimizers_each_measure_their_own() -> None:
    net = network()
    net[1].rest = nn.Linear(2, 2)
    first, second = sgd(net[0]), sgd(net[2])
    monitor = Monitor(net, every=2).attach(first).attach(second)
    backward(net)
    for _ in range(3):
        first.step()
    second.step()
    records = [(r.optimizer, r.step, r.weights.names) for r in monitor.history]
    own = ["0.weight", "0.bias", "1.rest.weight", "1.rest.bias"]
    assert records == [(0, 0, own), (0, 2, own), (1, 0, ["2.weight", "2.bias"])]
    net[2].weight.grad.fill_(math.nan)
    second.step()
    with pytest.raises(NonFiniteError, match="before step 2 of optimizer 1: 15 NaN of 15 values"):
        second.step()
    monitor.detach(first)
    with pytest.raises(ValueError, match="this SGD is not attached"):
        monitor.detach(first)
    net.zero_grad()
    monitor.detach()


def test_a_step_that_fails_is_not_counted() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=1).attach(optimizer)

    def fails() -> float:
        raise KeyError("closure")

    with pytest.raises(KeyError):
        optimizer.step(fails)
    train(net, optimizer, 1)
    assert [record.step for record in monitor.history] == [0]


def test_a_scheduler_and_a_wrapper() -> None:
    class Wrapper:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

    net = network()
    optimizer = sgd(net)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    monitor = Monitor(net, every=1).attach(Wrapper(optimizer), step=7)
    train(net, optimizer, 1)
    scheduler.step()
    assert monitor.history[0].step == 7
    assert "next step 8" in repr(monitor)
    monitor.detach(Wrapper(optimizer))
    assert "not attached; 1 records" in repr(monitor)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.unsanitized
def test_a_compiled_step_is_measured_and_not_traced() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=2).attach(optimizer)
    backward(net)
    step = torch.compile(lambda: optimizer.step(), backend="eager")
    for _ in range(5):
        step()  # a warning that the native code cannot be traced would be an error
    assert [record.step for record in monitor.history] == [0, 2, 4]
    assert (monitor.history[1].update_norms > 0).all()
