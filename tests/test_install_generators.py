"""install(): what nn.Module's methods give is a generator to whoever asks, and installing leaves nothing behind."""

from __future__ import annotations

import collections.abc
import copy
import gc
import inspect
import sys
import types
import warnings

import pytest
import torch
from torch import nn

import pyparam


def iterators():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    for function in (
        "named_parameters",
        "parameters",
        "named_buffers",
        "buffers",
        "named_modules",
        "modules",
    ):
        yield getattr(pyparam, function)(net)
        with pyparam.installed():
            yield getattr(net, function)()


def test_they_are_generators() -> None:
    for it in iterators():
        assert isinstance(it, types.GeneratorType)
        assert isinstance(it, collections.abc.Generator)
        assert inspect.isgenerator(it)
        assert it.gi_running is False
        with pytest.raises(TypeError, match="cannot pickle"):
            copy.copy(it)


def test_send_throw_and_close_are_a_generators() -> None:
    for it in iterators():
        with pytest.raises(TypeError, match="can't send non-None value to a just-started generator"):
            it.send(1)
        first = it.send(None)
        second = it.send("ignored")
        assert first is not second
        with pytest.raises(KeyError, match="thrown"):
            it.throw(KeyError("thrown"))
        assert list(it) == []
        with pytest.raises(StopIteration):
            it.send(None)
    for it in iterators():
        next(it)
        it.close()
        it.close()
        assert list(it) == []
    for it in iterators():  # a whole list was made, and nothing taken from it yet
        assert it.__length_hint__() > 0
        with pytest.raises(ZeroDivisionError):
            it.throw(ZeroDivisionError)
        assert list(it) == []
        with pytest.raises(
            TypeError, match="exceptions must be classes or instances deriving from BaseException"
        ):
            it.throw(1)


@pytest.mark.parametrize("clip", [torch.nn.utils.clip_grad_norm_, pyparam.clip_grad_norm_])
def test_an_exhausted_generator_is_warned_of(clip) -> None:
    with pyparam.installed():
        exhausted = nn.Linear(2, 2).parameters()
        list(exhausted)
        with pytest.warns(UserWarning, match="`parameters` is an empty generator, no gradient clipping"):
            clip(exhausted, 1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clip(nn.Linear(2, 2).parameters(), 1.0)


class Memo:
    """What nn.Module.named_modules asks of a memo."""

    def __init__(self) -> None:
        self.seen: list[nn.Module] = []

    def __contains__(self, module: object) -> bool:
        return any(module is m for m in self.seen)

    def add(self, module: nn.Module) -> None:
        self.seen.append(module)


def test_a_memo_is_anything_with_in_and_add() -> None:
    shared = nn.Linear(1, 1)
    net = nn.Sequential(nn.Sequential(shared), shared, nn.ReLU())
    for made in (set, Memo):
        theirs, ours = made(), made()
        expected = list(net.named_modules(memo=theirs))
        assert list(pyparam.named_modules(net, memo=ours)) == expected
        assert list(getattr(ours, "seen", ours)) == list(getattr(theirs, "seen", theirs))
        assert list(pyparam.named_modules(net, memo=ours)) == []
    for container in ([shared], (shared,), {shared: 1}, frozenset([shared])):
        expected = list(net.named_modules(memo=container, remove_duplicate=False))
        assert list(pyparam.named_modules(net, memo=container, remove_duplicate=False)) == expected
        assert all(module is not shared for _, module in expected)
        for function in (type(net).named_modules, pyparam.named_modules):
            with pytest.raises(AttributeError, match="has no attribute 'add'"):
                list(function(net, memo=container))
    for function in (type(net).named_modules, pyparam.named_modules):
        with pytest.raises(TypeError, match="is not (iterable|a container)"):
            list(function(net, memo=3))


def test_a_thousand_blocks_leave_nothing_behind() -> None:
    def counts() -> tuple[int, ...]:
        gc.collect()
        functions = sum(type(o) is types.FunctionType for o in gc.get_objects())
        return functions, len(gc.get_objects()), sys.getallocatedblocks()

    for _ in range(3):
        with pyparam.installed():
            list(nn.Linear(1, 1).parameters())
    before = counts()
    for _ in range(1000):
        with pyparam.installed():
            pass
    after = counts()
    assert after[0] <= before[0]  # fewer where what other tests left was collected meanwhile
    assert after[1] - before[1] < 20
    assert after[2] - before[2] < 200


def test_what_something_else_put_into_nn_module_is_left_and_asked(monkeypatch) -> None:
    original = nn.Module.buffers
    monkeypatch.setattr(nn.Module, "buffers", lambda self, recurse=True: iter(["patched"]))
    patched = nn.Module.buffers
    with pyparam.installed():
        assert nn.Module.buffers is patched
        assert list(nn.Linear(1, 1).buffers()) == ["patched"]
        assert nn.Module.parameters is not nn.Module.buffers
    assert nn.Module.buffers is patched
    monkeypatch.undo()
    assert nn.Module.buffers is original
