"""Monitor: detached in the middle of a step, copied with its functions, and logs that come and go."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import threading
import weakref

import pytest
import torch
from training import network, sgd, train

import pyparam
from pyparam import Monitor


@pytest.mark.parametrize("what", ["on_record", "on_alarm", "on_nonfinite"])
def test_detaching_in_the_middle_of_a_step(what: str) -> None:
    net = network()
    optimizer = sgd(net)
    holder: list[Monitor] = []

    class Always:
        name = "always"

        def __call__(self, record, earlier):
            yield record.weights.names[0], "so"

    options = {"on_alarm": lambda _: None, what: lambda _: holder[0].detach()}
    first = Monitor(net, every=1, alarms=[Always()], **options).attach(optimizer)
    holder.append(first)
    second = Monitor(net, every=1, on_nonfinite=lambda _: None).attach(optimizer)  # goes on, behind the first
    if what == "on_nonfinite":
        net[0].weight.grad = torch.full_like(net[0].weight, math.nan)
        optimizer.step()
    else:
        train(net, optimizer, 1)
    gone = weakref.ref(first)
    made = len(first.history)
    assert made == (0 if what == "on_nonfinite" else 1)
    train(net, optimizer, 2)
    assert len(first.history) == made
    assert len(second.history) == 3
    holder.clear()
    del first
    gc.collect()
    assert gone() is None  # the hook that had to stay holds nothing


def test_a_copy_has_no_functions_and_watches_nothing() -> None:
    net = network()
    optimizer = sgd(net)
    lock = threading.Lock()  # cannot be pickled, as most writers cannot
    monitor = Monitor(
        net, every=1, alarms=pyparam.DEFAULT_RULES, on_alarm=lambda _: lock, on_record=lambda _: lock,
        on_nonfinite=lambda _: lock,
    ).attach(optimizer)  # fmt: skip
    train(net, optimizer, 2)
    for other in (pickle.loads(pickle.dumps(monitor)), copy.deepcopy(monitor)):
        assert [record.step for record in other.history] == [0, 1]
        assert (other.model, other.on_record, other.on_nonfinite) == (None, None, "warn")
        assert "no model" in repr(other)
    twin = copy.deepcopy(optimizer)
    twin.step()
    assert len(monitor.history) == 2


def test_a_writer_where_another_was() -> None:
    net = network()
    optimizer = sgd(net)
    monitor = Monitor(net, every=1).attach(optimizer)
    train(net, optimizer, 2)
    writers = monitor._writers

    class Writer:
        __hash__ = None

    one = Writer()
    number = id(one)
    assert writers.not_yet(one, 2) == 2
    assert writers.not_yet(one, 3) == 1
    del one
    # At once: what is made between may take the place, and then nothing gets it.
    another = Writer()
    if id(another) != number:
        pytest.skip("this interpreter put the next object elsewhere")
    assert writers.not_yet(another, 3) == 3
    assert writers.not_yet(3, 3) == 3  # an int is held
