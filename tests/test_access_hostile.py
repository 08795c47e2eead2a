"""The bulk walk beside code that changes what it reads: keys, sets and finalisers with Python code of their own.

Each case ends in PyTorch's own answer or error, in a process that lives.
"""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import threading
from typing import Any

import pytest
import reference_access as reference
import torch
from torch import nn

import pyparam


class Key(str):
    """A str whose comparison runs code."""

    __slots__ = ()
    on_compare: Any = None

    def __hash__(self) -> int:
        return str.__hash__(self)

    def __eq__(self, other: object) -> bool:
        if Key.on_compare is not None and str.__eq__(self, str(other)):
            callback, Key.on_compare = Key.on_compare, None
            callback()
        return str.__eq__(self, other)


@pytest.fixture(autouse=True)
def _disarmed():
    yield
    Key.on_compare = None


def layers(count: int = 40) -> nn.Module:
    net = nn.Module()
    for i in range(count):
        net.add_module(str(i), nn.Linear(2, 2))
    return net


def with_key(module: nn.Module, name: str) -> None:
    """Makes ``name`` in the instance's dict a Key."""
    items = dict(module.__dict__)
    module.__dict__.clear()
    module.__dict__.update({Key(k) if k == name else k: v for k, v in items.items()})


LISTINGS = {
    "named_parameters": lambda net: list(pyparam.named_parameters(net)),
    "named_buffers": lambda net: list(pyparam.named_buffers(net)),
    "named_modules": lambda net: list(pyparam.named_modules(net)),
    "state_dict": lambda net: list(pyparam.state_dict(net)),
    "walk": lambda net: pyparam.walk(net, buffers=True).names,
}


@pytest.mark.parametrize("listing", list(LISTINGS))
@pytest.mark.parametrize(
    "name", ["_modules", "_parameters", "_buffers", "_state_dict_hooks", "named_modules"]
)
def test_a_key_that_clears_the_model_while_it_is_compared(listing: str, name: str) -> None:
    net = layers()
    first = net._modules["0"]
    if name == "named_modules":
        first.__dict__[name] = lambda *args, **kwargs: iter([])
    with_key(first, name)
    del first
    junk: list[Any] = []

    def clear() -> None:
        net._modules.clear()
        junk.extend(bytearray(4096) for _ in range(500))

    Key.on_compare = clear
    with contextlib.suppress(RuntimeError):  # "dictionary changed size during iteration", as PyTorch's own
        LISTINGS[listing](net)
    gc.collect()


@pytest.mark.parametrize("listing", list(LISTINGS))
def test_keys_of_a_subclass_of_str_are_listed_as_pytorch_lists_them(listing: str) -> None:
    net = layers(3)
    for name in ("_modules", "_parameters"):
        with_key(net._modules["1"], name)
    net._modules[Key("own")] = nn.BatchNorm1d(2)
    net._modules["0"]._parameters[Key("extra")] = nn.Parameter(torch.ones(1))
    net._modules["own"]._buffers[Key("more")] = torch.ones(1)
    names = [name for name, _ in nn.Module.named_parameters(net)] + [n for n, _ in net.named_buffers()]
    expected = {
        "named_parameters": reference.listing(net.named_parameters()),
        "named_buffers": reference.listing(net.named_buffers()),
        "named_modules": reference.listing(net.named_modules()),
        "state_dict": list(net.state_dict()),
    }
    got = LISTINGS[listing](net)
    if listing == "walk":
        assert sorted(got) == sorted(names)
    elif listing == "state_dict":
        assert got == expected[listing]
    else:
        assert reference.listing(got) == expected[listing]


def test_a_namespace_with_odd_keys_runs_no_code_within_the_bulk_walk() -> None:
    net = layers(3)
    odd = type("Odd", (nn.Linear,), {Key("named_modules_"): 1, Key("_modules_"): 2})
    net.add_module("odd", odd(2, 2))
    Key.on_compare = lambda: pytest.fail("compared")
    assert reference.listing(pyparam.named_modules(net)) == reference.listing(net.named_modules())


class Names(set):
    """A set whose membership test runs code."""

    on_contains: Any = None

    def __contains__(self, name: object) -> bool:
        if Names.on_contains is not None:
            Names.on_contains()
        return set.__contains__(self, name)


def norms(count: int = 50) -> nn.Sequential:
    net = nn.Sequential(*[nn.BatchNorm1d(4) for _ in range(count)])
    net[1].register_buffer("temporary", torch.ones(1), persistent=False)
    return net


def test_a_set_that_walks_another_model_while_it_is_asked() -> None:
    other, net = layers(3), norms()
    expected = list(net.state_dict())
    for module in net:
        module._non_persistent_buffers_set = Names(module._non_persistent_buffers_set)
    Names.on_contains = lambda: list(pyparam.parameters(other))
    try:
        assert list(pyparam.state_dict(net)) == expected
    finally:
        Names.on_contains = None
    assert "1.temporary" not in expected


def test_non_persistent_names_of_a_subclass_of_str_count() -> None:
    net = norms(3)
    net[0]._non_persistent_buffers_set = {Key("running_mean"), "num_batches_tracked"}
    expected = list(net.state_dict())
    assert list(pyparam.state_dict(net)) == expected
    assert "0.running_mean" not in expected


def test_two_threads_walk_at_once() -> None:
    models = [norms(60), layers(80)]
    expected = [list(model.state_dict()) for model in models]
    for module in models[0]:
        module._non_persistent_buffers_set = Names(module._non_persistent_buffers_set)
    Names.on_contains = lambda: None  # Python code: the interpreter may switch threads here
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(50):
            if list(pyparam.state_dict(models[i])) != expected[i]:
                wrong.append(i)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
        Names.on_contains = None
    assert not wrong


FINALISER = """
import gc
import torch, pyparam
from torch import nn

net = nn.Module()
keep = []

class Bomb:
    def __del__(self):
        net._parameters.pop("w", None)
        keep.append([object() for _ in range(50)])

for trial in range(200):
    net._parameters.clear()
    net._parameters["w"] = nn.Parameter(torch.zeros(3))
    net._parameters["v"] = nn.Parameter(torch.zeros(3))
    gc.disable()
    it = iter(pyparam.named_parameters(net, remove_duplicate=False))
    bomb = Bomb()
    bomb.me = bomb
    del bomb
    held = [(i, trial) for i in range(2500)]  # empties the free list of pairs
    gc.set_threshold(1 + trial % 6)
    gc.enable()
    try:
        name, value = next(it)
    except RuntimeError:
        continue
    gc.disable()
    assert type(value) is nn.Parameter, (trial, type(value))
    repr(value)
    del value, it
print("alive")
"""


def test_a_finaliser_run_by_the_collector_between_two_items() -> None:
    done = subprocess.run([sys.executable, "-c", FINALISER], capture_output=True, text=True)
    assert done.stdout == "alive\n", done.stderr


def test_the_collector_is_on_again_after_every_walk() -> None:
    net = norms(3)
    for listing in LISTINGS.values():
        listing(net)
        assert gc.isenabled()


WITHOUT_GIL = """
import sys
sys._is_gil_enabled = lambda: False
try:
    import pyparam
except ImportError as error:
    print(error)
"""


def test_an_interpreter_without_its_lock_is_refused() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_GIL], capture_output=True, text=True)
    assert "pyparam needs the GIL" in done.stdout
    assert "PYTHON_GIL=0" in done.stdout
