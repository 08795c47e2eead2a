"""Each public verb under PyTorch's modes: the answer is that without the mode, or the verb refuses by its name.

What a verb refuses it has not begun: the model is as it was.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from public_verbs import TORCHS_OWN, VERBS, World, told
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import pyparam
from pyparam import init


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# What stands around a call, and whether the call may be refused.
CONTEXTS: dict[str, tuple[Callable[[], Any], bool]] = {
    # A tensor that follows the default device has no values there: no answer can come of it.
    "default device": (lambda: torch.device("meta"), False),
    "float64": (lambda: default_dtype(torch.float64), False),
    "bfloat16": (lambda: default_dtype(torch.bfloat16), False),
    "float16": (lambda: default_dtype(torch.float16), False),
    "no_grad": (torch.no_grad, False),
    "inference_mode": (torch.inference_mode, False),
    "fake": (FakeTensorMode, True),
}
TRANSFORMS: dict[str, Callable[[Callable[[torch.Tensor], torch.Tensor]], object]] = {
    "vmap": lambda f: torch.func.vmap(f)(torch.ones(2, 3)),
    "grad": lambda f: torch.func.grad(f)(torch.ones(3)),
    "jvp": lambda f: torch.func.jvp(f, (torch.ones(3),), (torch.ones(3),)),
    "functionalize": lambda f: torch.func.functionalize(f)(torch.ones(3)),
}
# PyTorch functionalizes no operation of others whose results are views.
BEYOND_PYTORCH = {("unflatten", "functionalize"): "pyparam::unflatten"}


def under(mode: str, call: Callable[[], Any]) -> Any:
    if mode in CONTEXTS:
        with CONTEXTS[mode][0]():
            return call()
    given: list[Any] = []

    def transformed(x: torch.Tensor) -> torch.Tensor:
        given.append(call())
        return x.square().sum()

    TRANSFORMS[mode](transformed)
    return given[0]


def outcome(verb: Callable[[World], Any], mode: str, folder: Path) -> tuple[Any, Exception | None]:
    """A verb's answer, or its error; after an error the model is as it was."""
    world = World(folder)
    before = told((world.model, [p.grad for p in world.model.parameters()]))
    try:
        answer = under(mode, lambda: verb(world))
    except Exception as error:
        assert told((world.model, [p.grad for p in world.model.parameters()])) == before, "half-written"
        return None, error
    return told(answer), None


@pytest.mark.parametrize("mode", [*CONTEXTS, *TRANSFORMS])
@pytest.mark.parametrize("name", VERBS)
def test_the_answer_is_that_without_the_mode(name: str, mode: str, tmp_path: Path) -> None:
    verb = VERBS[name]
    answer, error = outcome(verb, mode, tmp_path)
    if error is None:
        assert answer == told(verb(World(tmp_path)))
        return
    own = TORCHS_OWN.get(name)
    if own is not None:  # a drop-in does what PyTorch's own does
        _, theirs = outcome(own, mode, tmp_path)
        assert (type(error), str(error)) == (type(theirs), str(theirs))
        return
    if (name, mode) in BEYOND_PYTORCH:
        assert BEYOND_PYTORCH[name, mode] in str(error)
        return
    assert CONTEXTS.get(mode, (None, True))[1], f"refused: {error!r}"
    assert type(error) is TypeError
    assert str(error).startswith(f"{name.split()[0].removeprefix('init.')}: ")


def test_every_public_verb_is_run() -> None:
    run = {name.split()[0] for name in VERBS}
    # uninstall ends what install begins; these make rules or numbers, and no tensor.
    elsewhere = {
        "uninstall",
        "log",
        "init.calculate_gain",
        "init.gpt2_rules",
        "init.mup_rules",
        "init.vit_rules",
    }
    public = {name for name in pyparam.__all__ if callable(getattr(pyparam, name)) and name[0].islower()}
    public |= {f"init.{name}" for name in init.__all__ if name[0].islower()}
    assert public - run == elsewhere - run


def test_what_was_measured_outside_is_read_under_a_default_device_and_dtype() -> None:
    net = nn.Linear(4, 4)
    stats = pyparam.measure(net, histogram=True, quantiles=[0.5])
    wanted = told([stats.sort("std"), stats + stats, stats.quantile(0.3), stats.histogram()])
    with torch.device("meta"), default_dtype(torch.bfloat16):
        found = [stats.sort("std"), stats + stats, stats.quantile(0.3), stats.histogram()]
    assert told(found) == wanted


WORDS = {
    "fake": "measure: under FakeTensorMode tensors have no values, and this reads or writes them; call it outside",
    "grad": "measure: inside torch.func's grad, and this reads or writes memory, which is not transformed",
    "vmap": "measure: inside torch.func's vmap, and this reads or writes memory, which is not transformed",
}


@pytest.mark.parametrize("mode", WORDS)
def test_a_verb_that_reads_memory_says_what_it_is_inside(mode: str) -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=f"^{re.escape(WORDS[mode])}"):
        under(mode, lambda: pyparam.measure(net))


def test_operations_name_the_tensor_with_values_among_fake_ones() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    vector = torch.ones(12)
    words = "has values, and under FakeTensorMode an operation takes fake tensors alone"
    with FakeTensorMode():
        fake = nn.Linear(2, 2)
        made = pyparam.flatten(fake)
        assert type(made).__name__ == "FakeTensor"
        assert made.shape == (6,)
        init.normal_(fake.weight, seed=0)
        net[0].weight = fake.weight
        with pytest.raises(TypeError, match=f"^flatten: parameter '0.bias' {words}"):
            pyparam.flatten(net)
        with pytest.raises(TypeError, match=f"^total_norm: parameter '0.bias' {words}"):
            pyparam.total_norm(net)
        with pytest.raises(TypeError, match=f"^ones_: the tensor {words}"):
            init.ones_(net[0].bias)
        for verb, call in {
            "scatter_": lambda: pyparam.scatter_(fake, vector),
            "unflatten": lambda: pyparam.unflatten(vector, fake),
            "vector_to_parameters": lambda: pyparam.vector_to_parameters(vector, fake.parameters()),
        }.items():
            with pytest.raises(TypeError, match=f"^{verb}: the vector {words}"):
                call()


def test_a_mode_that_takes_tensors_with_values_gets_them() -> None:
    net = nn.Linear(2, 2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert type(pyparam.flatten(net)).__name__ == "FakeTensor"


def test_a_transform_takes_no_write_to_what_it_does_not_transform() -> None:
    net = nn.Linear(2, 2)
    weight = net.weight.detach().clone()

    def writes(x: torch.Tensor) -> torch.Tensor:
        init.normal_(net.weight, seed=0)
        return x.sum()

    words = "is from outside a function that torch.func's grad transforms, which takes no writes to it"
    for transformed in (torch.func.grad(writes), torch.func.grad(torch.func.vmap(writes))):
        with pytest.raises(TypeError, match=f"^normal_: the tensor {words}"):
            transformed(torch.ones(2, 2))
    with pytest.raises(TypeError, match=f"^initialize_: parameter 'weight' {words}"):
        torch.func.grad(lambda x: (init.initialize_(net, seed=0), x.sum())[1])(torch.ones(2))
    assert torch.equal(net.weight, weight)


@pytest.mark.parametrize("transform", ["grad", "jvp"])
def test_flatten_is_differentiated_inside_a_transform(transform: str) -> None:
    a, b = torch.arange(3.0), torch.arange(4.0)

    def energy(a: torch.Tensor) -> torch.Tensor:
        return pyparam.parameters_to_vector([a, b]).square().sum()

    if transform == "grad":
        assert torch.equal(torch.func.grad(energy)(a), 2 * a)
    else:
        assert torch.equal(torch.func.jvp(energy, (a,), (torch.ones(3),))[1], 2 * a.sum())


# --- inference mode ----------------------------------------------------------------------------------------


def _trains(net: nn.Module) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    net(torch.ones(2, 6)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize(
    "change",
    [
        lambda net, path: pyparam.load_file_(net, path, assign=True),
        lambda net, path: pyparam.load_file_(net.to("meta"), path, device="cpu"),
        lambda net, path: pyparam.untie_(net, "1.weight"),
        lambda net, path: init.to_empty(net, device="cpu"),
        lambda net, path: init.initialize_(net.to("meta"), device="cpu", seed=0),
        lambda net, path: pyparam.pack_(net),
    ],
    ids=["load_file_ assign", "load_file_ device", "untie_", "to_empty", "initialize_ device", "pack_"],
)
def test_what_was_changed_under_inference_mode_is_trained_afterwards(
    change: Callable[[nn.Module, Path], Any], tmp_path: Path
) -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    net[1].weight = net[0].weight
    path = tmp_path / "net.safetensors"
    pyparam.save_file(net, path)
    with torch.inference_mode():
        change(net, path)
    assert not [name for name, parameter in net.named_parameters() if parameter.is_inference()]
    _trains(net)


def test_an_average_begun_under_inference_mode_goes_on_outside() -> None:
    net = nn.BatchNorm1d(3)
    with torch.inference_mode():
        average = pyparam.EMA(net, 0.5)
        average.update()
    with torch.no_grad():
        net.weight.fill_(3.0)
    average.update()
    assert average.state_dict()["weight"].tolist() == [2.0, 2.0, 2.0]
    for verb in ("update", "swap"):
        with FakeTensorMode(), pytest.raises(TypeError, match=f"^EMA.{verb}: under FakeTensorMode"):
            getattr(average, verb)()


def test_a_monitor_measures_a_step_under_inference_mode_and_one_after_it() -> None:
    net = nn.Linear(6, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    monitor = pyparam.Monitor(net, every=1).attach(optimizer)
    net(torch.ones(2, 6)).sum().backward()
    with torch.inference_mode():
        optimizer.step()
    optimizer.step()
    first, second = (record.update_norms for record in monitor.history)
    assert first is not None
    assert second is not None
    assert first.tolist() == pytest.approx(second.tolist(), rel=1e-5)
    assert float(first.min()) > 0


@pytest.mark.parametrize("transform", ["vmap", "functionalize"])
def test_a_norm_has_no_rule_for_what_a_transform_wraps(transform: str) -> None:
    words = (
        rf"total_norm: parameter '[01]' is an argument of a function that torch.func's {transform} transforms"
    )
    for wrap in (lambda f: f, torch.func.grad):
        with pytest.raises(TypeError, match=words):
            TRANSFORMS[transform](wrap(lambda w: pyparam.total_norm([torch.ones(2), w])))


def test_a_zero_tensor_is_called_one() -> None:
    zero = torch._efficientzerotensor((3,))
    assert pyparam.measure({"a": zero, "b": torch.ones(2)}).unread == {"a": "it is a zero tensor"}
