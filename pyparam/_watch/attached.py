"""An optimizer's hooks: when a step is made, and with what."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from pyparam._base.words import a_kind
from pyparam._measure.stats import Stats
from pyparam._share.readable import Read
from pyparam._sources.table import ParamTable
from pyparam._watch.between import Between

if TYPE_CHECKING:
    from pyparam._watch.monitor import Monitor


class Attached:
    """An optimizer's two hooks and the number of its next step.

    The optimizer holds this, and this the Monitor; the optimizer itself is held weakly, so that there is no
    cycle.
    """

    def __init__(self, monitor: Monitor, optimizer: Optimizer, number: int, step: int) -> None:
        self.monitor = monitor
        self.optimizer = weakref.ref(optimizer)
        self.number = number
        self.step = step
        self.finite_after: int | None = None
        """The last step after which all weights were seen to be finite."""
        self._every = monitor.every
        self._checks = monitor.check == "every"
        self._between = Between()
        self._pending: PendingStep | None = None
        self._gone = False
        self._running: RemovableHandle | None = None
        self._handles = (
            optimizer.register_step_pre_hook(self.before_step),
            optimizer.register_step_post_hook(self.after_step),
        )

    def before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._gone:
            return
        # A step under torch.compile is traced, and what measures it must not be.
        before = self._before
        if torch.compiler.is_compiling():
            before = torch.compiler.disable(before)  # type: ignore[no-untyped-call]
        self._running = self._handles[0]
        try:
            before(optimizer, args, kwargs)
        finally:
            self._running = None

    def after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._gone:
            return
        after = self._after
        if torch.compiler.is_compiling():
            after = torch.compiler.disable(after)  # type: ignore[no-untyped-call]
        self._running = self._handles[1]
        try:
            after(optimizer)
        finally:
            self._running = None

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        measured = self._between.stands_out(optimizer) or self.step % self._every == 0
        if measured or self._checks:
            self._pending = None
            given = (*args, kwargs.get("closure"))  # the optimizer itself among them
            closure = any(argument is not optimizer and callable(argument) for argument in given)
            self._pending = self.monitor._begin(self, optimizer, measured, closure)

    def _after(self, optimizer: Optimizer) -> None:
        pending = self._pending
        if pending is None:
            self.step += 1
            return
        self._pending = None
        self.monitor._end(self, pending, optimizer)

    def remove(self) -> None:
        """Of the hooks that the optimizer is just going through, when something that was called detaches, one
        has to stay: it does nothing and holds nothing any more."""
        for handle in self._handles:
            if handle is not self._running:
                handle.remove()
        self._gone = True
        self._pending = None
        del self.monitor


class PendingStep:
    """What is known of a step before it is made."""

    __slots__ = ("before", "closure", "grad_scale", "gradients", "left_out", "measured", "seconds", "table")

    def __init__(self, measured: bool, closure: bool, grad_scale: float) -> None:
        self.measured = measured
        self.closure = closure
        self.grad_scale = grad_scale
        self.table = ParamTable([], [])
        self.gradients: Stats | None = None
        # Copies, the parameters they are of, and their positions in the table.
        self.before: list[tuple[ParamTable, ParamTable, list[int]]] = []
        self.left_out: dict[str, str] = {}
        self.seconds = 0.0

    def keep(self, read: Read) -> None:
        """Takes out what can no longer be read: parameters freed by the step, or of an odd dtype."""
        names = self.table.names
        position = {names[row]: i for i, row in enumerate(read.rows)}
        self.table = self.table._take(read.rows)
        self.left_out |= read.left_out
        kept = []
        for before, after, _ in self.before:
            rows = [row for row, name in enumerate(after.names) if name in position]
            if rows:
                positions = [position[after.names[row]] for row in rows]
                kept.append((before._take(rows), after._take(rows), positions))
        self.before = kept


def hooked(optimizer: Any) -> Optimizer:
    """The optimizer whose steps can be followed: itself, or the one that a wrapper holds."""
    seen = optimizer
    for _ in range(8):
        if isinstance(seen, Optimizer) and "_optimizer_step_pre_hooks" in seen.__dict__:
            return seen
        seen = getattr(seen, "optimizer", None)
    raise TypeError(f"Monitor: expected a torch.optim.Optimizer to attach to, got {a_kind(optimizer)}")


def held(optimizer: Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def left_out(optimizer: Optimizer) -> bool:
    """Whether a GradScaler found infinite gradients, so that a fused optimizer's step will change nothing."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def grad_scale_of(optimizer: Optimizer) -> float:
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else float(scale)
