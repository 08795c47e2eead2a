"""Monitor: measures a model while an optimizer trains it."""

from __future__ import annotations

import contextlib
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from pyparam._base.modes import require_memory
from pyparam._base.words import a_kind
from pyparam._compare.compare import compare
from pyparam._measure.measure import measure_strictly
from pyparam._measure.stats import Stats
from pyparam._share.readable import read_of
from pyparam._sources import table_of
from pyparam._sources.table import ParamTable
from pyparam._watch.alarms import Alarms, OnAlarm
from pyparam._watch.attached import Attached, PendingStep, grad_scale_of, held, hooked, left_out
from pyparam._watch.copies import Copies
from pyparam._watch.gradients import all_finite, gradients_of
from pyparam._watch.noise import gradient_noise
from pyparam._watch.records import NonFinite, NonFiniteError, Record, share_names
from pyparam._watch.replaced import Holdings
from pyparam._watch.replicas import Replicas
from pyparam._watch.rules import Alarm, Rule
from pyparam._watch.spectral import Spectral
from pyparam._watch.writers import Writers

_NAMED = 4

OnNonFinite = Literal["raise", "warn"] | Callable[[NonFinite], object]


class Monitor:
    """Measures weights, gradients and update-to-weight ratios at every ``every``-th step of an optimizer.

    ::

        with Monitor(model, every=10).attach(optimizer) as monitor:
            train(...)
        pyparam.plot(monitor.history)

    Steps count from 0, and step 0 is measured. Gradients are measured before the step is made (with a
    closure, after it: those of its last evaluation), weights after it. At other steps no value is read. One
    of them is measured all the same, in a process of its own (not under ``torch.distributed``), where a
    learning rate is 5 times that of the step before, or where another number of parameters has a gradient
    than at all of the 5 steps before: a spike of one step, or a layer frozen by mistake, is named with its
    own step.

    A measured step keeps a copy of the weights for the update-to-weight ratios, in a buffer that is made once
    and freed by ``detach``. Parameters may come, go, be replaced or freed of their gradients at any time:
    each measured step walks the model as it is. A parameter that cannot be read (on the meta device, sparse,
    a wrapper of other tensors, freed) costs its row and never the run: it is named once by a RuntimeWarning,
    and in ``record.left_out``. So is one that was replaced while an optimizer still holds the old one. A step
    that a GradScaler leaves out because of infinite gradients is no step: nothing is counted or reported.

    Values that are not finite are looked for at the measured steps alone (``check="measured"``): a NaN that
    came up in between is found at the next of them, where it may have spread, and the parameter named is the
    first in the model's order, not in time (``NonFinite.since`` says so). Gradients that come of weights
    which were not finite already are told as those weights. ``check="every"`` reads gradients before and
    weights after every step, which names the step and the quantity for sure, for the cost of two norms a step
    (and on another device than the CPU, of waiting for it).

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
        spectral: bool = False,
        noise: bool = False,
        group: Any = None,
        alarms: Iterable[Rule] = (),
        on_alarm: OnAlarm = "warn",
        on_record: Callable[[Record], object] | None = None,
    ) -> None:
        """
        Args:
            model: an ``nn.Module``, or any other source of live parameters.
            every: measures the steps whose number it divides, and those that stand out (see above).
            grad: measures gradients too.
            on_nonfinite: "raise" a :class:`NonFiniteError` (for a gradient before the step is made: the
                weights are as they were), "warn" once when a quantity stops being finite, or a function that
                is called with each :class:`NonFinite`.
            check: whether to look for non-finite values at "measured" steps or at "every" step.
            history: how many records are kept.
            histogram: counts histograms too, for ``stats.quantile`` and ``pyparam.log``; records are some 40
                KB a parameter then.
            updates: measures update-to-weight ratios, which takes a copy of the weights.
            spectral: follows the largest singular value of each matrix (``record.sigma_max``, with
                ``record.stable_rank``): found by iteration at the first measured step, and from there on by
                one more step of subspace iteration from the vectors of the measured step before, with its
                residual as ``record.sigma_error``. Two products of each matrix with four vectors.
            noise: measures how noisy gradients are (``record.gradient_noise``), from the moments that Adam
                and its like keep: one more pass over each of them.
            alarms: rules that look at each record: :class:`GradientSpike`, :class:`UpdateRatio`,
                :class:`NoGradient` and their like, ``pyparam.DEFAULT_RULES`` for all of them, or your own.
            on_alarm: "warn" when a rule finds something it had not found at the measured step before, or a
                function that is called with each such :class:`Alarm`. All are in ``monitor.alarms``.
            on_record: called with each :class:`Record`, such as ``lambda r: pyparam.log(r, writer)``.
            group: a process group whose ranks train replicas of ordinary parameters, as with
                ``DistributedDataParallel``: what is not finite on one of them is reported on all, in the same
                step. DTensors need none.

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
        self._alarms = Alarms(alarms, on_alarm)
        self.on_record = on_record
        self.check = check
        self.grad = bool(grad)
        self.on_nonfinite: OnNonFinite = on_nonfinite
        self.histogram = bool(histogram)
        self.updates = bool(updates)
        self.noise = bool(noise)
        self._replicas = Replicas(group)
        self.seconds = 0.0
        self.first_nonfinite: NonFinite | None = None
        self._records: deque[Record] = deque(maxlen=_positive("history", history))
        self._bad: set[str] = set()  # quantities that were not finite when they were last looked at
        self._told: set[str] = set()
        self._told_replaced: set[str] = set()
        self._holdings = Holdings()
        model = list(model) if isinstance(model, Iterator) else model
        table_of(model)
        self._model: Any = model
        self._weak: weakref.ref[Any] | None = None
        self._attached: list[weakref.ref[Attached]] = []
        self._count = 0
        self._made = 0  # records, also those that are no longer kept
        self._writers = Writers()
        self._copies = Copies()
        self._spectral = Spectral() if spectral else None

    @property
    def model(self) -> Any:
        """What it measures; None where that is gone."""
        return self._model if self._model is not None or self._weak is None else self._weak()

    @property
    def history(self) -> list[Record]:
        return list(self._records)

    @property
    def alarms(self) -> list[Alarm]:
        """What the rules found, the oldest first."""
        return list(self._alarms.found)

    def _not_yet_in(self, writer: Any) -> list[Record]:
        """The records that were made since this writer was last asked for, of those that are kept."""
        new = min(self._writers.not_yet(writer, self._made), len(self._records))
        return list(self._records)[len(self._records) - new :]

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
        stepping = hooked(optimizer)
        if any(attached.optimizer() is stepping for attached in self._alive()):
            raise ValueError(f"Monitor: this {type(stepping).__name__} is attached already")
        self._model = self.model
        if self._model is None:
            raise ValueError("Monitor: its model is gone; make a new Monitor of the model there is now")
        own = held(stepping)
        table = table_of(self._model)
        parameters = table.tensors
        self._attached.append(weakref.ref(Attached(self, stepping, self._count, int(step))))
        self._count += 1
        if parameters and not any(id(parameter) in own for parameter in parameters):
            warnings.warn(
                f"Monitor: the {type(stepping).__name__} holds none of the model's {len(parameters):,} "
                "parameters (were they replaced after it was made?); it will not change them",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            self._tell_replaced(table, stacklevel=3)
        return self

    def _alive(self) -> list[Attached]:
        """What is attached. Optimizers hold it, and it goes with them."""
        found = [attached() for attached in self._attached]
        return [attached for attached in found if attached is not None]

    def detach(self, optimizer: Optimizer | None = None) -> None:
        """Stops measuring at the steps of an optimizer, or of all; the history stays.

        Raises ValueError for an optimizer that is not attached.
        """
        wanted = None if optimizer is None else hooked(optimizer)
        leaving = [a for a in self._alive() if wanted is None or a.optimizer() is wanted]
        if wanted is not None and not leaving:
            raise ValueError(f"Monitor: this {type(wanted).__name__} is not attached")
        for attached in leaving:
            attached.remove()
        self._attached = [weakref.ref(a) for a in self._alive() if a not in leaving]
        if not self._attached:
            self._copies.clear()
            if self._spectral is not None:
                self._spectral.clear()
            if self._model is not None:
                with contextlib.suppress(TypeError):  # a list, which cannot be held weakly
                    self._weak = weakref.ref(self._model)
                self._model = None

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __getstate__(self) -> dict[str, Any]:
        """Settings and what was measured; no model, optimizers, writers or functions: they live elsewhere."""
        return {
            **self.__dict__,
            "_model": None,
            "_weak": None,
            "_attached": [],
            "_writers": Writers(),
            "_alarms": self._alarms.without_rules(),
            "on_record": None,
            "on_nonfinite": self.on_nonfinite if isinstance(self.on_nonfinite, str) else "warn",
            "_copies": Copies(),
            "_spectral": None if self._spectral is None else Spectral(),
            "_replicas": Replicas(None),
            "_holdings": Holdings(),
        }

    def __repr__(self) -> str:
        of = "no model" if self.model is None else type(self.model).__name__
        steps = ", ".join(str(attached.step) for attached in self._alive())
        state = f"attached, next step {steps}" if steps else "not attached"
        taken = f", {self.seconds / len(self._records) * 1e3:.3g} ms each" if self._records else ""
        return f"Monitor({of}, every={self.every}): {state}; {len(self._records)} records{taken}"

    # --- a step --------------------------------------------------------------------------------------------

    def _begin(self, at: Attached, optimizer: Optimizer, measured: bool, closure: bool) -> PendingStep | None:
        """Before a step that is measured, or checked."""
        if left_out(optimizer):
            return None
        require_memory("Monitor")
        start = time.perf_counter()
        pending = PendingStep(measured, closure, grad_scale_of(optimizer))
        table = self._table(at, optimizer, measured)
        if pending.measured and self.updates:
            pending.before, read = read_of(table, self._copies.of)
            if read.left_out:
                table = table._take(read.rows)
                pending.left_out |= read.left_out
        pending.table = table
        if self.grad and not closure:
            if pending.measured:
                pending.gradients = self._gradients(table, pending)
                self._judge_gradients(at, table, pending.gradients)
            elif not self._replicas.all_finite(all_finite(table, grad=True)):
                self._judge_gradients(at, table, self._gradients(table, pending))
        pending.seconds = time.perf_counter() - start
        return pending

    def _end(self, at: Attached, pending: PendingStep, optimizer: Optimizer) -> None:
        """After it."""
        start = time.perf_counter()
        step, at.step = at.step, at.step + 1
        if not pending.measured:
            if (
                self.grad
                and pending.closure
                and not self._replicas.all_finite(all_finite(pending.table, grad=True))
            ):
                own = self._gradients(pending.table, pending)
                self._judge(at, "gradient", own, self._replicas.nonfinite(own), step, "after")
            if not self._replicas.all_finite(all_finite(pending.table, grad=False)):
                own = read_of(pending.table, measure_strictly)[0]
                self._judge(at, "weight", own, self._replicas.nonfinite(own), step, "after")
            else:
                at.finite_after = step
            self.seconds += pending.seconds + time.perf_counter() - start
            return
        weights, read = read_of(pending.table, lambda part: measure_strictly(part, histogram=self.histogram))
        if read.left_out:
            pending.keep(read)
        gradients = pending.gradients
        if self.grad and pending.closure:
            gradients = self._gradients(pending.table, pending)
        norms = ratios = None
        if self.updates:
            norms, ratios = torch.zeros((2, len(weights)), dtype=torch.float64, device="cpu")
            for before, after, positions in pending.before:
                change = compare(before, after)
                norms[positions] = change.l2
                ratios[positions] = change.rel_l2
        sigma = error = None
        if self._spectral is not None:
            sigma, error = self._spectral.of(pending.table, weights)
        variance = signal = None
        if self.noise:
            variance, signal = gradient_noise(optimizer, pending.table)
        if self._records:
            share_names(weights, self._records[-1].weights)
            if gradients is not None and self._records[-1].gradients is not None:
                share_names(gradients, self._records[-1].gradients)
        self._tell_left_out(pending)
        seconds = pending.seconds + time.perf_counter() - start
        self.seconds += seconds
        self._records.append(
            Record(
                step=step,
                optimizer=at.number,
                weights=weights,
                gradients=gradients,
                grad_scale=pending.grad_scale,
                update_norms=norms,
                update_ratios=ratios,
                seconds=seconds,
                left_out=pending.left_out,
                sigma_max=sigma,
                sigma_error=error,
                gradient_variance=variance,
                gradient_signal=signal,
                learning_rates=tuple(float(group.get("lr", 0.0)) for group in optimizer.param_groups),
            )
        )
        self._made += 1
        record = self._alarms.look(self._records[-1], list(self._records)[:-1], optimizer, self._model, 6)
        self._records[-1] = record
        if self.on_record is not None:
            self.on_record(record)
        if gradients is not None and pending.closure:
            self._judge(at, "gradient", gradients, self._replicas.nonfinite(gradients), step, "after")
        bad = self._replicas.nonfinite(weights)
        known = bad and any(measure_strictly(before).nonfinite() for before, _, _ in pending.before)
        looked = bool(pending.before) or pending.gradients is not None
        self._judge(at, "weight", weights, bad, step, "before" if known else "after", looked=looked)
        if not bad:
            at.finite_after = step

    def _table(self, at: Attached, optimizer: Optimizer, measured: bool) -> ParamTable:
        """The model's parameters as they are now; with several optimizers those of this one."""
        table = table_of(self._model)
        tensors = table.tensors
        attached = self._alive()
        if measured:
            self._tell_replaced(table, stacklevel=7)
        chosen = list(range(len(tensors)))
        if any(map(is_lazy, tensors)):
            chosen = [i for i in chosen if not is_lazy(tensors[i])]
        if len(attached) > 1:
            own = held(optimizer)
            if at is attached[0]:
                optimizers = (other.optimizer() for other in attached[1:])
                others = {number for other in optimizers if other is not None for number in held(other)}
                own |= {id(tensor) for tensor in tensors} - others
            chosen = [i for i in chosen if id(tensors[i]) in own]
        return table if len(chosen) == len(tensors) else table._take(chosen)

    def _gradients(self, table: ParamTable, pending: PendingStep) -> Stats:
        stats, refused = gradients_of(table, histogram=self.histogram)
        pending.left_out |= {f"the gradient of {name!r}": reason for name, reason in refused.items()}
        return stats

    # --- what is told once ---------------------------------------------------------------------------------

    def _tell_left_out(self, pending: PendingStep) -> None:
        for name, reason in pending.left_out.items():
            if name not in self._told:
                self._told.add(name)
                what = name if name.startswith("the gradient of ") else repr(name)
                warnings.warn(
                    f"Monitor: {what} is left out, it cannot be read: {reason}", RuntimeWarning, stacklevel=6
                )

    def _tell_replaced(self, table: ParamTable, *, stacklevel: int) -> None:
        optimizers = [found for found in (a.optimizer() for a in self._alive()) if found is not None]
        names = [
            name for name in self._holdings.replaced(table, optimizers) if name not in self._told_replaced
        ]
        if not names:
            return
        self._told_replaced.update(names)
        kinds = " and ".join(dict.fromkeys(type(optimizer).__name__ for optimizer in optimizers))
        shown = ", ".join(map(repr, names[:_NAMED]))
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        one = len(names) == 1
        warnings.warn(
            f"Monitor: {shown}{more} {'was' if one else 'were'} replaced in the model, and the {kinds} still "
            f"holds what was there before: it will not change {'it' if one else 'them'} (make the optimizer "
            "again, or give it the new with add_param_group)",
            RuntimeWarning,
            stacklevel=stacklevel,
        )

    def _judge_gradients(self, at: Attached, table: ParamTable, gradients: Stats) -> None:
        """Before a step: gradients that are not finite may come of weights that were not already."""
        bad = self._replicas.nonfinite(gradients)
        if bad:
            weights, _ = read_of(table, measure_strictly)
            bad_weights = self._replicas.nonfinite(weights)
            if bad_weights:
                self._judge(at, "weight", weights, bad_weights, at.step, "before")
                return
        self._judge(at, "gradient", gradients, bad, at.step, "before")

    def _judge(
        self,
        at: Attached,
        quantity: Literal["gradient", "weight"],
        stats: Stats,
        bad: Mapping[str, int | None],
        step: int,
        when: Literal["before", "after"],
        *,
        looked: bool = True,
    ) -> None:
        """``looked`` says whether anything was looked at before the step, so that it is known to be of it."""
        names = list(bad)
        if not names:
            self._bad.discard(quantity)
            return
        # A gradient is of its own step. A weight that was bad before this one became so at any since it was
        # last seen to be good.
        since = at.finite_after if quantity == "weight" and (when == "before" or not looked) else None
        ranks = {name: rank for name, rank in bad.items() if rank is not None}
        found = NonFinite(step, quantity, names, stats, when, at.number, len(self._alive()), since, ranks)
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


def _positive(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"Monitor: {name} is {a_kind(value)}; expected a whole number")
    if value < 1:
        raise ValueError(f"Monitor: {name} must be positive, got {value}")
    return value
