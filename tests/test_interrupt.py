"""Ctrl-C ends a long native pass that reads, and leaves one that writes whole."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import pyparam


def endless() -> Tensor:
    """64 G values in 16 KB: minutes of reading."""
    return torch.linspace(0, 1, 1 << 12).expand(1 << 24, 1 << 12)


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, _thread.interrupt_main)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@pytest.fixture(autouse=True)
def interrupts_are_heard() -> Iterator[None]:
    """What a shell starts in the background ignores them, and so would every test here."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


PASSES: dict[str, Callable[[Tensor], Any]] = {
    "measure": lambda t: pyparam.measure([t]),
    "histogram": lambda t: pyparam.measure([t], histogram=True),
    "measure op": lambda t: torch.ops.pyparam.measure([t]),
    "total_norm": lambda t: pyparam.total_norm([t]),
    "compare": lambda t: pyparam.compare([t], [t]),
    "fingerprint": lambda t: pyparam.fingerprint([t]),
}


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    was = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(was)


@pytest.mark.parametrize("name", PASSES)
def test_ctrl_c_ends_a_pass_that_reads(name: str, threads: int) -> None:
    tensor = endless()
    begun = time.monotonic()
    with interrupted_after(0.3), pytest.raises(KeyboardInterrupt):
        PASSES[name](tensor)
    assert time.monotonic() - begun < 20
    # And the next pass is a whole one.
    assert pyparam.measure([torch.ones(1 << 20)])[0].l1 == 1 << 20


def test_a_handler_that_returns_lets_the_pass_go_on() -> None:
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(time.monotonic()))
    try:
        with interrupted_after(0.2):
            tensor = torch.ones(1 << 12).expand(1 << 19, 1 << 12)
            row = pyparam.measure([tensor])[0]
    finally:
        signal.signal(signal.SIGINT, before)
    ended = time.monotonic()
    assert row.l1 == float(1 << 31)
    assert len(heard) == 1
    assert heard[0] <= ended


def test_an_error_of_a_handler_is_the_callers() -> None:
    class Stop(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stop

    before = signal.signal(signal.SIGINT, stop)
    try:
        with interrupted_after(0.2), pytest.raises(Stop):
            pyparam.total_norm([endless()])
    finally:
        signal.signal(signal.SIGINT, before)


def test_clipping_ended_in_its_norm_has_scaled_nothing() -> None:
    small = torch.full((5,), 9.0)
    # Windows that slide over one another: an expanded gradient would be refused.
    large = torch.ones(8190).as_strided((2047, 2047, 4096), (1, 1, 1))
    with interrupted_after(0.3), pytest.raises(KeyboardInterrupt):
        torch.ops.pyparam.clip_grad_norm_([small, large], 1.0, 3.0, False)
    assert small.eq(9).all()
    assert large[0, 0].eq(1).all()
