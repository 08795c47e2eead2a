"""What a Monitor finds non-finite, what it keeps alive, and mistakes."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref

import pytest
import torch
from training import backward, network, sgd, train

import pyparam
from pyparam import Monitor, NonFinite, NonFiniteError

# --- non-finite values ----------------------------------------------------------------------------------------


def test_a_gradient_is_found_before_the_step() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=1).attach(optimizer)
    backward(net)
    net[2].weight.grad[1, 1] = math.nan
    net[2].weight.grad[1, 2] = -math.inf
    net[2].bias.grad[0] = math.inf
    before = pyparam.fingerprint(net)
    words = (
        r"^the gradient of '2\.weight' is not finite before step 0: 1 NaN and 1 infinite of 15 values; "
        r"1 more of 4 are not, the last '2\.bias'$"
    )
    with pytest.raises(NonFiniteError, match=words) as caught:
        optimizer.step()
    found = caught.value.found
    assert (found.step, found.quantity, found.name, found.names) == (
        0,
        "gradient",
        "2.weight",
        ["2.weight", "2.bias"],
    )
    assert found.stats["2.weight"].nans == 1
    assert monitor.first_nonfinite is found
    assert pyparam.fingerprint(net) == before
    train(net, optimizer, 1)  # the step that was not made has the same number
    assert monitor.history[-1].step == 0
    assert pickle.loads(pickle.dumps(caught.value)).found.names == found.names


def test_a_weight_is_found_after_the_step() -> None:
    net = network()
    optimizer = sgd(net, lr=math.inf)
    monitor = Monitor(net, every=1).attach(optimizer)
    backward(net)
    with pytest.raises(NonFiniteError, match=r"^'0.weight' is not finite after step 0: .* of 30 values"):
        optimizer.step()
    assert monitor.first_nonfinite.quantity == "weight"
    assert [record.step for record in monitor.history] == [0]


@pytest.mark.parametrize(("check", "step", "quantity"), [("measured", 4, "weight"), ("every", 2, "gradient")])
def test_between_measured_steps(check, step, quantity) -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=4, check=check).attach(optimizer)

    def steps() -> None:
        for i in range(6):
            optimizer.zero_grad()
            backward(net)
            if i == 2:
                net[0].weight.grad[0, 0] = math.nan
            optimizer.step()

    with pytest.raises(NonFiniteError):
        steps()
    assert (monitor.first_nonfinite.step, monitor.first_nonfinite.quantity) == (step, quantity)


def test_every_check_finds_a_weight_and_a_closure_s_gradient() -> None:
    net = network()
    optimizer = sgd(net, lr=math.inf)
    Monitor(net, every=100, check="every").attach(optimizer, step=1)
    backward(net)
    with pytest.raises(NonFiniteError, match="after step 1"):
        optimizer.step()

    net = network()
    optimizer = sgd(net, lr=0.0)

    def closure() -> float:
        net[2].bias.grad = torch.full((3,), math.inf)
        return 0.0

    for every, step in ((100, 1), (1, 0)):
        monitor = Monitor(net, every=every, check="every").attach(optimizer, step=step)
        with pytest.raises(
            NonFiniteError, match=f"gradient of '2.bias' is not finite after step {step}: 3 infinite"
        ):
            optimizer.step(closure)
        monitor.detach()


@pytest.mark.parametrize("every", [1, 100])
def test_a_weight_that_was_not_finite_before_is_named_and_not_its_gradients(every) -> None:
    net = network()
    optimizer = sgd(net)
    Monitor(net, every=every, check="every").attach(optimizer, step=1)
    with torch.no_grad():
        net[2].weight[0, 0] = math.nan
    backward(net)
    assert net[0].weight.grad.isnan().any()
    words = r"^'2\.weight' is not finite before step 1: 1 NaN of 15 values$"
    with pytest.raises(NonFiniteError, match=words) as caught:
        optimizer.step()
    assert (caught.value.found.quantity, caught.value.found.when) == ("weight", "before")


def test_huge_finite_gradients_are_no_event() -> None:
    net = network()
    optimizer = sgd(net, lr=0.0)
    monitor = Monitor(net, every=100, check="every").attach(optimizer, step=1)
    for p in net.parameters():
        p.grad = torch.full_like(p, 3e38)
    assert pyparam.total_norm(net, grad=True).isinf()
    optimizer.step()
    assert monitor.first_nonfinite is None


def test_a_warning_once_and_a_function_each_time() -> None:
    net = network()
    optimizer = sgd(net, lr=0.0)
    found: list[NonFinite] = []
    Monitor(net, every=1, on_nonfinite="warn").attach(optimizer)
    monitor = Monitor(net, every=1, on_nonfinite=found.append).attach(optimizer)
    net[0].bias.grad = torch.tensor([math.nan, 0, 0, 0, 0])
    with pytest.warns(RuntimeWarning, match="Monitor: (the gradient of )?'0.bias'") as caught:
        optimizer.step()
    assert [str(warning.message).split(" is not")[0] for warning in caught] == [
        "Monitor: the gradient of '0.bias'",
        "Monitor: '0.bias'",
    ]
    assert {warning.filename for warning in caught} == {__file__}
    optimizer.step()  # another warning would be an error
    net[0].bias.grad.zero_()
    net[0].bias.data.zero_()
    optimizer.step()
    quantities = [(0, "gradient"), (0, "weight"), (1, "weight"), (1, "weight")]
    assert [(f.step, f.quantity) for f in found] == quantities
    assert monitor.first_nonfinite is found[0]
    net[0].bias.grad[0] = math.nan
    with pytest.warns(RuntimeWarning, match="before step 3|after step 3"):
        optimizer.step()


def test_a_function_may_raise() -> None:
    class Stop(Exception):
        pass

    def stop(found: NonFinite) -> None:
        raise Stop(str(found))

    net = network()
    optimizer = sgd(net)
    Monitor(net, every=1, on_nonfinite=stop).attach(optimizer)
    net[0].bias.grad = torch.full((5,), math.inf)
    with pytest.raises(Stop, match="5 infinite of 5 values"):
        optimizer.step()


# --- what it keeps alive --------------------------------------------------------------------------------------


def test_after_detach_it_keeps_neither_model_nor_optimizer() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=1).attach(optimizer)
    train(net, optimizer, 2)
    monitor.detach()
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    gone = [weakref.ref(net), weakref.ref(optimizer)]
    gc.collect()
    gc.disable()
    try:
        del net, optimizer
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()
    assert len(monitor.history) == 2
    assert "Monitor(no model" in repr(monitor)
    with pytest.raises(ValueError, match="its model is gone; make a new Monitor"):
        monitor.attach(sgd(network()))


def test_an_optimizer_that_goes_takes_its_hooks_along_without_the_collector() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net).attach(optimizer)
    gone = weakref.ref(net), weakref.ref(monitor)
    gc.collect()
    gc.disable()
    try:
        del net, optimizer, monitor
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()


def test_it_lives_as_long_as_the_optimizer() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = weakref.ref(Monitor(net, every=1).attach(optimizer))
    train(net, optimizer, 2)
    assert len(monitor().history) == 2


def test_a_context_manager_detaches_also_after_an_error() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=1).attach(optimizer)

    def fails() -> None:
        with monitor:
            train(net, optimizer, 1)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    train(net, optimizer, 1)
    assert len(monitor.history) == 1
    monitor.attach(optimizer, step=5)
    train(net, optimizer, 1)
    assert [record.step for record in monitor.history] == [0, 5]


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"]
)
def test_a_copy_has_the_history_and_no_model(copied) -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=2, histogram=True, on_nonfinite="warn").attach(optimizer)
    train(net, optimizer, 3)
    other = copied(monitor)
    assert [r.step for r in other.history] == [0, 2]
    assert other.every == 2
    assert repr(other.history[1].weights) == repr(monitor.history[1].weights)
    assert torch.equal(other.history[1].update_ratios, monitor.history[1].update_ratios)
    assert torch.equal(
        other.history[1].weights.histogram().counts, monitor.history[1].weights.histogram().counts
    )
    train(net, optimizer, 2)
    assert (len(other.history), len(monitor.history)) == (2, 3)
    with pytest.raises(ValueError, match="its model is gone"):
        other.attach(optimizer)
    pickle.loads(pickle.dumps(optimizer))
    copy.deepcopy(optimizer).step()
    assert len(monitor.history) == 3


# --- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"every": 0}, ValueError, "Monitor: every must be positive, got 0"),
        ({"every": 2.5}, TypeError, "Monitor: every is a float; expected a whole number"),
        ({"history": 0}, ValueError, "Monitor: history must be positive, got 0"),
        ({"check": "all"}, ValueError, "Monitor: check is 'all'; expected 'measured' or 'every'"),
        (
            {"on_nonfinite": "stop"},
            ValueError,
            "on_nonfinite is 'stop'; expected 'raise', 'warn' or a function",
        ),
        ({"on_nonfinite": 3}, TypeError, "on_nonfinite is 3; expected 'raise', 'warn' or a function"),
    ],
)
def test_wrong_arguments(options, kind, words) -> None:
    with pytest.raises(kind, match=words):
        Monitor(network(), **options)


def test_what_cannot_be_attached() -> None:
    net = network()
    with pytest.raises(TypeError, match="an int is no source of parameters"):
        Monitor(3)
    monitor = Monitor(net.named_parameters())
    with pytest.raises(TypeError, match="expected a torch.optim.Optimizer to attach to, got a Sequential"):
        monitor.attach(net)
    optimizer = sgd(net)
    monitor.attach(optimizer)
    with pytest.raises(ValueError, match="this SGD is attached already"):
        monitor.attach(optimizer)
    with pytest.warns(RuntimeWarning, match="the SGD holds none of the model's 4 parameters"):
        monitor.attach(sgd(network()))
    train(net, optimizer, 1)
    assert len(monitor.history[0].weights) == 4


def test_where_nothing_was_looked_at_before_a_step_it_is_not_blamed() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=10, grad=False, updates=False, on_nonfinite="warn").attach(optimizer)
    train(net, optimizer, 5)
    with torch.no_grad():
        net[2].bias[0] = math.nan
    with pytest.warns(RuntimeWarning, match=r"It became so after step 0, in steps that were not looked at"):
        train(net, optimizer, 6)
    assert monitor.first_nonfinite is not None
    assert (monitor.first_nonfinite.step, monitor.first_nonfinite.since) == (10, 0)
