"""Monitor: what it cannot read costs its row and not the run; parameters that were replaced are named."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from pyparam import Monitor, NonFiniteError

OWN = ["0.weight", "0.bias", "2.weight", "2.bias"]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.arange(12.0).reshape(2, 6) / 7).square().mean().backward()
        optimizer.step()


def sgd(net: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD((p for p in net.parameters() if p.requires_grad), 0.1)


def freed() -> torch.Tensor:
    tensor = torch.ones(3, 3)
    tensor.untyped_storage().resize_(0)
    return tensor


UNREADABLE = {
    "meta": (lambda: torch.ones(2, device="meta"), "it is on the meta device"),
    "sparse": (lambda: torch.eye(3).to_sparse(), r"it is sparse \(sparse_coo\)"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "it is a nested tensor"),
    "wrapper": (
        lambda: TwoTensor(torch.ones(3), torch.ones(3)),
        "it is a TwoTensor, whose values are elsewhere",
    ),
    "freed": (freed, "its memory was freed"),
    "packed": (
        lambda: torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        "it has dtype Float4_e2m1fn_x2",
    ),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("check", ["measured", "every"])
def test_a_frozen_parameter_that_cannot_be_read_costs_its_row(kind, check) -> None:
    make, reason = UNREADABLE[kind]
    net = network()
    net.frozen = nn.Module()
    net.frozen.odd = nn.Parameter(make(), requires_grad=False)
    net.frozen.also = nn.Parameter(make(), requires_grad=False)
    net.frozen.forward = lambda x: x
    optimizer = sgd(net)
    monitor = Monitor(net, every=2, check=check).attach(optimizer)
    with pytest.warns(RuntimeWarning) as told:
        train(net, optimizer, 5)
    assert len(told) == 2  # each once
    assert all(warning.filename == __file__ for warning in told)
    words = str(told[0].message)
    assert re.match(f"Monitor: 'frozen.odd' is left out, it cannot be read: {reason}", words)
    for record in monitor.history:
        assert record.weights.names == OWN
        assert set(record.left_out) == {"frozen.odd", "frozen.also"}
        assert record.update_ratios.shape == (4,)
        assert (record.update_ratios > 0).all()
    assert [record.step for record in monitor.history] == [0, 2, 4]


def test_the_words() -> None:
    net = network()
    net.odd = nn.Identity()
    net.odd.frozen = nn.Parameter(torch.ones(2, device="meta"), requires_grad=False)
    optimizer = sgd(net)
    Monitor(net, every=1).attach(optimizer)
    words = r"^Monitor: 'odd.frozen' is left out, it cannot be read: it is on the meta device$"
    with pytest.warns(RuntimeWarning, match=words):
        train(net, optimizer, 1)


def test_memory_freed_in_a_step_costs_one_row_of_one_step() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=1).attach(optimizer)
    bias = net[0].bias
    kept = bias.detach().clone()

    def free(*_: object) -> None:
        bias.untyped_storage().resize_(0)

    handle = optimizer.register_step_post_hook(free)
    # Ours must run after it, as that of a wrapper that frees would.
    optimizer._optimizer_step_post_hooks.move_to_end(handle.id, last=False)
    with pytest.warns(RuntimeWarning, match="'0.bias' is left out, it cannot be read: its memory was freed"):
        train(net, optimizer, 1)
    handle.remove()
    bias.untyped_storage().resize_(20)
    bias.data.copy_(kept)
    train(net, optimizer, 1)
    assert monitor.history[0].weights.names == ["0.weight", "2.weight", "2.bias"]
    assert (monitor.history[0].update_ratios > 0).all()
    assert monitor.history[1].weights.names == OWN
    assert monitor.history[1].left_out == {}


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_a_gradient_that_cannot_be_read_leaves_the_weight() -> None:
    class Passing(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            return None

    net = network()
    optimizer = Passing(net.parameters(), 0.1)
    monitor = Monitor(net, every=1).attach(optimizer)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    net[0].bias.grad = None
    net[2].bias.grad = torch.sparse_coo_tensor(torch.tensor([[0, 2]]), torch.tensor([3.0, 4.0]), (3,))
    net[2].weight.grad.untyped_storage().resize_(0)
    with pytest.warns(RuntimeWarning, match="the gradient of '2.weight' is left out, it cannot be read"):
        optimizer.step()
    (record,) = monitor.history
    assert record.weights.names == OWN
    assert record.gradients.names == ["0.weight", "2.bias"]
    assert record.gradients["2.bias"].l2 == 5
    assert record.gradients.missing == ["0.bias", "2.weight"]


def test_only_what_cannot_be_read_at_all() -> None:
    net = nn.ParameterDict({"a": nn.Parameter(torch.ones(2, device="meta"))})
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(3))], 0.1)
    with pytest.warns(RuntimeWarning, match="holds none of the model's 1 parameters"):
        monitor = Monitor(net, every=1, check="every").attach(optimizer)
    with pytest.warns(RuntimeWarning, match="'a' is left out"):
        optimizer.step()
    assert len(monitor.history[0].weights) == 0


def test_a_nan_beside_what_cannot_be_read_is_found() -> None:
    net = network()
    net.odd = nn.Identity()
    net.odd.frozen = nn.Parameter(freed(), requires_grad=False)
    optimizer = sgd(net)
    Monitor(net, every=100, check="every").attach(optimizer, step=1)
    train(net, optimizer, 1)
    net[2].bias.data[1] = float("nan")
    with pytest.raises(NonFiniteError, match="'2.bias' is not finite before step 2: 1 NaN of 3 values"):
        train(net, optimizer, 1)


# --- replaced parameters --------------------------------------------------------------------------------------


def test_one_replaced_before_attach_is_named_there() -> None:
    net = network()
    optimizer = sgd(net)
    net[2].weight = nn.Parameter(net[2].weight.detach().clone())
    words = (
        r"^Monitor: '2\.weight' was replaced in the model, and the SGD still holds what was there before: it will "
        r"not change it \(make the optimizer again, or give it the new with add_param_group\)$"
    )
    with pytest.warns(RuntimeWarning, match=words) as told:
        Monitor(net, every=1).attach(optimizer)
    assert told[0].filename == __file__


def test_those_replaced_after_attach_are_named_once() -> None:
    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
    optimizer = sgd(net)
    Monitor(net, every=1).attach(optimizer)
    optimizer.step()
    for layer in (0, 2, 3):
        net[layer].weight = nn.Parameter(net[layer].weight.detach().clone())
    net[1] = nn.Linear(3, 3)
    with pytest.warns(
        RuntimeWarning, match="'0.weight', '1.weight', '1.bias', '2.weight' and 1 more were"
    ) as told:
        optimizer.step()
    assert told[0].filename == __file__
    optimizer.step()  # a second warning would be an error


@pytest.mark.parametrize("kind", ["frozen", "new", "another optimizer", "another dtype"])
def test_what_no_optimizer_holds_is_not_called_replaced(kind) -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=1).attach(optimizer)
    if kind == "frozen":
        net[0].weight = nn.Parameter(torch.ones(5, 6), requires_grad=False)
    elif kind == "new":
        net.append(nn.Linear(3, 3))
    elif kind == "another optimizer":
        net.append(nn.Linear(3, 3))
        monitor.attach(sgd(net[3]))
    else:  # master weights, which an optimizer holds in place of the model's own
        net.half()
        optimizer.param_groups[0]["params"] = [nn.Parameter(p.detach().float()) for p in net.parameters()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()


# --- when a NaN came up ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("updates", [True, False])
def test_a_nan_that_is_steps_old_is_told_as_such(updates) -> None:
    net = network()
    optimizer = sgd(net)
    Monitor(net, every=10, updates=updates).attach(optimizer)
    train(net, optimizer, 13)
    net[0].bias.data[0] = float("nan")
    words = (
        r"'0\.weight' is not finite before step 20: .*; 3 more of 4 are not, the last '2\.bias'. It became so "
        r"after step 10, in steps that were not looked at, so the first to become so is not known: "
        r"check='every' looks at each$"
    )
    with pytest.raises(NonFiniteError, match=words) as raised:
        train(net, optimizer, 10)
    assert raised.value.found.since == 10


def test_without_gradients_an_old_nan_is_not_put_on_the_measured_step() -> None:
    net = network()
    optimizer = sgd(net)
    Monitor(net, every=10, grad=False).attach(optimizer)
    train(net, optimizer, 13)
    net[0].bias.data[0] = float("nan")
    with pytest.raises(NonFiniteError, match="not finite before step 20: .* after step 10, in steps"):
        train(net, optimizer, 10)


def test_a_nan_of_a_measured_step_is_of_that_step() -> None:
    net = network()
    optimizer = sgd(net)
    Monitor(net, every=10).attach(optimizer)
    train(net, optimizer, 10)
    optimizer.param_groups[0]["lr"] = float("nan")
    with pytest.raises(NonFiniteError, match="is not finite after step 10: ") as raised:
        train(net, optimizer, 1)
    assert raised.value.found.since is None
