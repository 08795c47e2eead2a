"""Monitor: measures a model while an optimizer trains it."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from pyparam._compare.compare import compare
from pyparam._measure.measure import measure
from pyparam._measure.norm import total_norm
from pyparam._measure.stats import Stats
from pyparam._memory.flatten import flatten, unflatten
from pyparam._sources import table_of
from pyparam._sources.table import ParamTable
from pyparam._watch.records import NonFinite, NonFiniteError, Record

_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


OnNonFinite = Literal["raise", "warn"] | Callable[[NonFinite], object]


class Monitor:
    """Measures weights, gradients and update-to-weight ratios at every ``every``-th step of an optimizer.

    ::

        with Monitor(model, every=10).attach(optimizer) as monitor:
            train(...)
        pyparam.plot(monitor.history)

    Steps count from 0, and step 0 is measured. Gradients are measured before the step is made (with a
    closure, after it: those of its last evaluation), weights after it. In between nothing is read: a step
    that is not measured costs two calls of a function that does nothing.

    A measured step keeps a copy of the weights for the update-to-weight ratios, in a buffer that is made once
    and freed by ``detach``. Parameters may come, go, be replaced or freed of their gradients at any time:
    each measured step walks the model as it is. A step that a GradScaler leaves out because of infinite
    gradients is no step: nothing is counted or reported.

    Values that are not finite are looked for at the measured steps alone (``check="measured"``): a NaN that
    came up in between is found at the next of them, where it may have spread, and the parameter named is the
    first in the model's order, not in time. Gradients that come of weights which were not finite already are
    told as those weights. ``check="every"`` reads gradients before and weights after every
    step, which names the step and the quantity for sure, for the cost of two norms a step (and on another
    device than the CPU, of waiting for it).

    With several optimizers each step measures the parameters that its own optimizer holds, those that no
    optimizer holds with the first. With one, all of the model's.

    Attributes:
        history: the :class:`Record` of each measured step, the oldest first, at most as many as asked for. A
            record takes some 300 bytes a parameter (two Stats).
        first_nonfinite: the first :class:`NonFinite`, or None.
        seconds: what measuring has taken altogether.

    The model is held while an optimizer is attached, and weakly after ``detach``. A copied or unpickled
    Monitor has the history and no model.
    """

    def __init__(
        self,
        model: Any,
        *,
        every: int = 10,
        grad: bool = True,
        on_nonfinite: OnNonFinite = "raise",
        check: Literal["measured", "every"] = "measured",
        history: int = 100,
        histogram: bool = False,
        updates: bool = True,
    ) -> None:
        """
        Args:
            model: an ``nn.Module``, or any other source of live parameters.
            every: measures the steps whose number it divides.
            grad: measures gradients too.
            on_nonfinite: "raise" a :class:`NonFiniteError` (for a gradient before the step is made: the
                weights are as they were), "warn" once when a quantity stops being finite, or a function that
                is called with each :class:`NonFinite`.
            check: whether to look for non-finite values at "measured" steps or at "every" step.
            history: how many records are kept.
            histogram: counts histograms too, for ``stats.quantile`` and ``pyparam.log``; records are some 40
                KB a parameter then.
            updates: measures update-to-weight ratios, which takes a copy of the weights.

        Raises:
            TypeError: for a model that is no source, or another type of argument.
            ValueError: for another word, or a number that is not positive.
        """
        self.every = _positive("every", every)
        if check not in ("measured", "every"):
            raise ValueError(f"Monitor: check is {check!r}; expected 'measured' or 'every'")
        if on_nonfinite not in ("raise", "warn") and not callable(on_nonfinite):
            kind = ValueError if isinstance(on_nonfinite, str) else TypeError
            raise kind(
                f"Monitor: on_nonfinite is {on_nonfinite!r}; expected 'raise', 'warn' or a function of the "
                "NonFinite"
            )
        self.check = check
        self.grad = bool(grad)
        self.on_nonfinite: OnNonFinite = on_nonfinite
        self.histogram = bool(histogram)
        self.updates = bool(updates)
        self.seconds = 0.0
        self.first_nonfinite: NonFinite | None = None
        self._records: deque[Record] = deque(maxlen=_positive("history", history))
        self._bad: set[str] = set()  # quantities that were not finite when they were last looked at
        model = list(model) if isinstance(model, Iterator) else model
        table_of(model)
        self._model: Any = model
        self._weak: weakref.ref[Any] | None = None
        self._attached: list[weakref.ref[_Attached]] = []
        self._count = 0
        self._buffers: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    @property
    def history(self) -> list[Record]:
        return list(self._records)

    # --- optimizers ----------------------------------------------------------------------------------------

    def attach(self, optimizer: Optimizer, *, step: int = 0) -> Monitor:
        """Measures at this optimizer's steps from now on; gives the Monitor itself.

        Args:
            optimizer: a ``torch.optim.Optimizer``, or a wrapper that has one as its ``optimizer``.
            step: the number of its next step, for a run that goes on.

        Raises:
            TypeError: for what is no optimizer.
            ValueError: for one that is attached already, or where the model is gone.
        """
        stepping = _hooked(optimizer)
        if any(attached.optimizer() is stepping for attached in self._alive()):
            raise ValueError(f"Monitor: this {type(stepping).__name__} is attached already")
        if self._model is None:
            self._model = None if self._weak is None else self._weak()
        if self._model is None:
            raise ValueError("Monitor: its model is gone; make a new Monitor of the model there is now")
        held = _held(stepping)
        parameters = table_of(self._model).tensors
        if parameters and not any(id(parameter) in held for parameter in parameters):
            warnings.warn(
                f"Monitor: the {type(stepping).__name__} holds none of the model's {len(parameters):,} "
                "parameters (were they replaced after it was made?); it will not change them",
                RuntimeWarning,
                stacklevel=2,
            )
        self._attached.append(weakref.ref(_Attached(self, stepping, self._count, int(step))))
        self._count += 1
        return self

    def _alive(self) -> list[_Attached]:
        """What is attached. Optimizers hold it, and it goes with them."""
        found = [attached() for attached in self._attached]
        return [attached for attached in found if attached is not None]

    def detach(self, optimizer: Optimizer | None = None) -> None:
        """Stops measuring at the steps of an optimizer, or of all; the history stays.

        Raises ValueError for an optimizer that is not attached.
        """
        wanted = None if optimizer is None else _hooked(optimizer)
        leaving = [a for a in self._alive() if wanted is None or a.optimizer() is wanted]
        if wanted is not None and not leaving:
            raise ValueError(f"Monitor: this {type(wanted).__name__} is not attached")
        for attached in leaving:
            attached.remove()
        self._attached = [weakref.ref(a) for a in self._alive() if a not in leaving]
        if not self._attached:
            self._buffers.clear()
            if self._model is not None:
                with contextlib.suppress(TypeError):  # a list, which cannot be held weakly
                    self._weak = weakref.ref(self._model)
                self._model = None

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __getstate__(self) -> dict[str, Any]:
        """Settings and what was measured; neither the model nor optimizers, which live elsewhere."""
        return {**self.__dict__, "_model": None, "_weak": None, "_attached": [], "_buffers": {}}

    def __repr__(self) -> str:
        model = self._model if self._weak is None or self._model is not None else self._weak()
        of = "no model" if model is None else type(model).__name__
        steps = ", ".join(str(attached.step) for attached in self._alive())
        state = f"attached, next step {steps}" if steps else "not attached"
        taken = f", {self.seconds / len(self._records) * 1e3:.3g} ms each" if self._records else ""
        return f"Monitor({of}, every={self.every}): {state}; {len(self._records)} records{taken}"

    # --- a step --------------------------------------------------------------------------------------------

    def _begin(self, at: _Attached, optimizer: Optimizer, closure: bool) -> _Pending | None:
        """Before a step that is measured, or checked."""
        if _left_out(optimizer):
            return None
        start = time.perf_counter()
        measured = at.step % self.every == 0
        table = self._table(at, optimizer)
        gradients = None
        if self.grad and not closure:
            if measured:
                gradients = self._gradients(table)
                self._judge_gradients(at, table, gradients)
            elif not _all_finite(table, True):
                self._judge_gradients(at, table, self._gradients(table))
        before = self._copy(table) if measured and self.updates else []
        pending = _Pending(table, gradients, before, measured, closure, _grad_scale(optimizer))
        pending.seconds = time.perf_counter() - start
        return pending

    def _end(self, at: _Attached, pending: _Pending) -> None:
        """After it."""
        start = time.perf_counter()
        table = pending.table
        step, at.step = at.step, at.step + 1
        if not pending.measured:
            if self.grad and pending.closure and not _all_finite(table, True):
                self._judge(at, "gradient", self._gradients(table), step, "after")
            if not _all_finite(table, False):
                self._judge(at, "weight", measure(table), step, "after")
            self.seconds += pending.seconds + time.perf_counter() - start
            return
        gradients = self._gradients(table) if self.grad and pending.closure else pending.gradients
        weights = measure(table, histogram=self.histogram)
        norms = ratios = None
        if self.updates:
            norms, ratios = torch.zeros((2, len(table)), dtype=torch.float64)
            for before, after, positions in pending.before:
                change = compare(before, after)
                norms[positions] = change.l2
                ratios[positions] = change.rel_l2
        if self._records:
            _share_names(weights, self._records[-1].weights)
            if gradients is not None and self._records[-1].gradients is not None:
                _share_names(gradients, self._records[-1].gradients)
        seconds = pending.seconds + time.perf_counter() - start
        self.seconds += seconds
        scale = pending.grad_scale
        self._records.append(Record(step, at.number, weights, gradients, scale, norms, ratios, seconds))
        if gradients is not None and pending.closure:
            self._judge(at, "gradient", gradients, step, "after")
        self._judge(at, "weight", weights, step, "after")

    def _table(self, at: _Attached, optimizer: Optimizer) -> ParamTable:
        """The model's parameters as they are now; with several optimizers those of this one."""
        table = table_of(self._model)
        tensors = table.tensors
        chosen = list(range(len(tensors)))
        if any(map(is_lazy, tensors)):
            chosen = [i for i in chosen if not is_lazy(tensors[i])]
        attached = self._alive()
        if len(attached) > 1:
            own = _held(optimizer)
            if at is attached[0]:
                optimizers = (other.optimizer() for other in attached[1:])
                others = {number for other in optimizers if other is not None for number in _held(other)}
                own |= {id(tensor) for tensor in tensors} - others
            chosen = [i for i in chosen if id(tensors[i]) in own]
        return table if len(chosen) == len(tensors) else table._take(chosen)

    def _gradients(self, table: ParamTable) -> Stats:
        try:
            return measure(table, grad=True, histogram=self.histogram)
        except TypeError:
            dense, missing = _dense_gradients(table)
            if dense is None:
                raise
            stats = measure(dense, histogram=self.histogram)
            stats.missing.extend(missing)
            return stats

    def _copy(self, table: ParamTable) -> list[tuple[ParamTable, ParamTable, Any]]:
        """The weights as they are: (copies, parameters, their positions in the table), for each device and
        dtype."""
        places: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for i, tensor in enumerate(table.tensors):
            places.setdefault((tensor.device, tensor.dtype), []).append(i)
        copies: list[tuple[ParamTable, ParamTable, Any]] = []
        for (device, dtype), positions in places.items():
            part = table if len(places) == 1 else table._take(positions)
            tensors = part.tensors
            needed = sum(tensor.numel() for tensor in tensors)
            buffer = self._buffers.get((device, dtype))
            if buffer is None or buffer.numel() < needed:
                buffer = torch.empty(needed, dtype=dtype, device=device)
                self._buffers[device, dtype] = buffer
            buffer = buffer[:needed]
            flatten(part, out=buffer)
            copies.append((ParamTable(part.names, unflatten(buffer, part)), part, positions))
        return copies

    def _judge_gradients(self, at: _Attached, table: ParamTable, gradients: Stats) -> None:
        """Before a step: gradients that are not finite may come of weights that were not already."""
        if gradients.nonfinite():
            weights = measure(table)
            if weights.nonfinite():
                self._judge(at, "weight", weights, at.step, "before")
                return
        self._judge(at, "gradient", gradients, at.step, "before")

    def _judge(
        self,
        at: _Attached,
        quantity: Literal["gradient", "weight"],
        stats: Stats,
        step: int,
        when: Literal["before", "after"],
    ) -> None:
        names = stats.nonfinite()
        if not names:
            self._bad.discard(quantity)
            return
        found = NonFinite(step, quantity, names, stats, when, at.number, len(self._alive()))
        if self.first_nonfinite is None:
            self.first_nonfinite = found
        known = quantity in self._bad
        self._bad.add(quantity)
        if self.on_nonfinite == "raise":
            raise NonFiniteError(found)
        if self.on_nonfinite == "warn":
            if not known:
                # The line that made the step: before it there is one more call in between.
                level = 7 if when == "before" else 6
                warnings.warn(f"Monitor: {found}", RuntimeWarning, stacklevel=level)
            return
        self.on_nonfinite(found)


class _Attached:
    """An optimizer's two hooks and the number of its next step.

    The optimizer holds this, and this the Monitor; the optimizer itself is held weakly, so that there is no
    cycle.
    """

    def __init__(self, monitor: Monitor, optimizer: Optimizer, number: int, step: int) -> None:
        self.monitor = monitor
        self.optimizer = weakref.ref(optimizer)
        self.number = number
        self.step = step
        self._every = monitor.every
        self._checks = monitor.check == "every"
        self._pending: _Pending | None = None
        self._handles = (
            optimizer.register_step_pre_hook(self.before_step),
            optimizer.register_step_post_hook(self.after_step),
        )

    def before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A step under torch.compile is traced, and what measures it must not be.
        before = self._before
        if torch.compiler.is_compiling():
            before = torch.compiler.disable(before)  # type: ignore[no-untyped-call]
        before(optimizer, args, kwargs)

    def after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        after = self._after
        if torch.compiler.is_compiling():
            after = torch.compiler.disable(after)  # type: ignore[no-untyped-call]
        after()

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._checks or self.step % self._every == 0:
            self._pending = None
            given = (*args, kwargs.get("closure"))  # the optimizer itself among them
            closure = any(argument is not optimizer and callable(argument) for argument in given)
            self._pending = self.monitor._begin(self, optimizer, closure)

    def _after(self) -> None:
        pending = self._pending
        if pending is None:
            self.step += 1
            return
        self._pending = None
        self.monitor._end(self, pending)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


class _Pending:
    """What is known of a step before it is made."""

    __slots__ = ("before", "closure", "grad_scale", "gradients", "measured", "seconds", "table")

    def __init__(
        self,
        table: ParamTable,
        gradients: Stats | None,
        before: list[tuple[ParamTable, ParamTable, Any]],
        measured: bool,
        closure: bool,
        grad_scale: float,
    ) -> None:
        self.table = table
        self.gradients = gradients
        self.before = before
        self.measured = measured
        self.closure = closure
        self.grad_scale = grad_scale
        self.seconds = 0.0


def _positive(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"Monitor: {name} is a {type(value).__name__}; expected a whole number")
    if value < 1:
        raise ValueError(f"Monitor: {name} must be positive, got {value}")
    return value


def _hooked(optimizer: Any) -> Optimizer:
    """The optimizer whose steps can be followed: itself, or the one that a wrapper holds."""
    seen = optimizer
    for _ in range(8):
        if isinstance(seen, Optimizer) and "_optimizer_step_pre_hooks" in seen.__dict__:
            return seen
        seen = getattr(seen, "optimizer", None)
    raise TypeError(
        f"Monitor: expected a torch.optim.Optimizer to attach to, got a {type(optimizer).__name__}"
    )


def _held(optimizer: Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def _left_out(optimizer: Optimizer) -> bool:
    """Whether a GradScaler found infinite gradients, so that a fused optimizer's step will change nothing."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def _grad_scale(optimizer: Optimizer) -> float:
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else float(scale)


def _all_finite(table: ParamTable, grad: bool) -> bool:
    """Whether the norm says so. It may be infinite of finite values, which measuring then shows."""
    try:
        norm = total_norm(table, grad=grad)
    except TypeError:
        dense = _dense_gradients(table)[0] if grad else None
        if dense is None:
            raise
        norm = total_norm(dense)
    return math.isfinite(norm.item())


def _dense_gradients(table: ParamTable) -> tuple[ParamTable | None, list[str]]:
    """Gradients as a table, sparse ones by the values they have, and the names of parameters without one;
    None where no gradient is sparse."""
    names, values, missing, sparse = [], [], [], False
    for name, parameter in table:
        gradient = parameter.grad
        if gradient is None:
            missing.append(name)
            continue
        if gradient.layout in _SPARSE:
            sparse = True
            gradient = gradient.coalesce() if gradient.layout == torch.sparse_coo else gradient
            gradient = gradient.values()
        names.append(name)
        values.append(gradient)
    return (ParamTable(names, values) if sparse else None), missing


def _share_names(stats: Stats, earlier: Stats) -> None:
    """Equal lists of names become one list, so that a history holds them once."""
    if stats._names == earlier._names:
        stats._names = earlier._names
