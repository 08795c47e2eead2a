"""Where a run left its course: change points of a Monitor's history, in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyparam._base.words import a_kind
from pyparam._measure.labels import layer_of
from pyparam._watch.records import Record
from pyparam._watch.rules import gradient_norms, update_norms

WINDOW = 20
"""Records that a value is held against."""
FEWEST = 6
"""How many of them there have to be."""
SETTLED = 10
"""After so many records on a new level, that is the course."""
_FACTOR = 5.0
_SPREADS = 8.0
_LEAST_SPREAD = 0.1
_ALWAYS, _GONE = 10, 4
"""What was there at so many records and is zero at so many in a row has stopped; experts see no token at
times."""
_NAMED = 4

_STOPPED, _BAD = -1, -2


@dataclass(frozen=True)
class Departure:
    """What left its course at one measured step; ``str()`` of it is a sentence."""

    step: int
    """The first measured step at which it was so."""
    since: int
    """The last one at which it was not: it happened after that step, or in ``step``."""
    quantity: str
    """"gradient norm", "update norm" (over the learning rate), "weight norm", "sigma_max" or "learning
    rate"."""
    names: tuple[str, ...]
    """Parameters, in the model's order; of a learning rate its group."""
    of: int
    """How many were looked at."""
    factors: tuple[float, ...]
    """Value over the median of the records before, of each; 0 where it stopped, NaN where it is not
    finite."""
    until: int | None
    """The measured step at which the first of them was back on its course or settled on a new one; None where
    none was."""

    @property
    def most(self) -> float:
        """The factor that is farthest from 1."""
        return max(self.factors, key=lambda f: math.inf if f == 0 or math.isnan(f) else abs(math.log(f)))

    def __str__(self) -> str:
        whole = len(self.names) == self.of and self.of > 1
        who = f"all {self.of:,} parameters" if whole else _together(self.names)
        at = f"at step {self.step}"
        if self.since < self.step - 1:
            at += f" (after step {self.since})"
        what = f"{self.quantity} {_times(self.factors)}"
        text = f"{who} left {'their' if whole or len(self.names) > 1 else 'its'} course {at}: {what}"
        return text + (f", until step {self.until}" if self.until is not None else "")


def departures(history: Iterable[Record]) -> list[Departure]:
    """Where parameters left their course in a Monitor's ``history``, the earliest first.

    ::

        for found in pyparam.departures(monitor.history):
            print(found)  # layers.3.mlp left its course at step 120: gradient norm × 40

    Of each parameter the norms of its gradient, of its update over the learning rate and of its weight, and
    with ``spectral=True`` the largest singular value, are held against the median of their logarithms over
    the last 20 records, of which there have to be 6. A value has left its course

    - where it has risen by more than a factor of 5 and by more than 8 times the robust spread (1.4826 times
      the median absolute deviation, at least 0.1) at two records in a row, or at one by twice that;
    - where it has fallen by twice that;
    - where a gradient or an update that was there at 10 records or more, and at each of the last 20, is zero
      at four in a row;
    - where it is not finite.

    What is off is no part of later medians until it has stayed so for 10 records: then it is the new course.
    Learning rates are held against the median alone.

    The step is that of the first such record: with ``every=10`` it happened in that step or in one of those
    since the record before, which ``since`` says.

    Args:
        history: records, as ``monitor.history`` has them. Of several optimizers each is looked at by itself,
            and so is each stretch of records with the same parameters.

    Raises:
        TypeError: for anything else than records.
    """
    records = list(history)
    for record in records:
        if not isinstance(record, Record):
            raise TypeError(f"departures: the history holds {a_kind(record)}; expected Records")
    found: list[Departure] = []
    for run in _runs(records):
        for quantity, values_of in _QUANTITIES.items():
            values = [values_of(record) for record in run]
            if all(value is not None for value in values):
                found += _of_series(run, quantity, torch.stack([v for v in values if v is not None]))
        found += _of_rates(run)
    return sorted(found, key=lambda departure: (departure.step, -len(departure.names)))


def _runs(records: Sequence[Record]) -> Iterator[list[Record]]:
    """The records of one optimizer with the same parameters, as long as they stay the same."""
    for number in sorted({record.optimizer for record in records}):
        run: list[Record] = []
        for record in records:
            if record.optimizer != number:
                continue
            if run and record.weights.names != run[-1].weights.names:
                yield run
                run = []
            run.append(record)
        if run:
            yield run


# --- the quantities --------------------------------------------------------------------------------------


def _gradients(record: Record) -> Tensor | None:
    """Of a parameter whose gradient is not finite NaN; 0 without a gradient."""
    if record.gradients is None:
        return None
    norms = gradient_norms(record).clone()
    position = record.weights._positions()
    for name in record.gradients.nonfinite():
        if name in position:
            norms[position[name]] = math.nan
    return norms


def _updates(record: Record) -> Tensor | None:
    """Over the largest learning rate of a group, since schedules change it; infinite at a rate of 0, where
    there is nothing to see."""
    if record.update_norms is None:
        return None
    rate = max(record.learning_rates, default=1.0)
    norms = update_norms(record)
    return norms / rate if rate > 0 else torch.full_like(norms, math.inf)


def _weights(record: Record) -> Tensor:
    norms = record.weights.l2.clone()
    bad = record.weights.nans + record.weights.posinfs + record.weights.neginfs
    norms[bad > 0] = math.nan
    return norms


def _sigmas(record: Record) -> Tensor | None:
    """Infinite where there is nothing to see: of vectors."""
    return None if record.sigma_max is None else record.sigma_max.nan_to_num(math.inf)


_QUANTITIES: dict[str, Callable[[Record], Tensor | None]] = {
    "gradient norm": _gradients,
    "update norm": _updates,
    "weight norm": _weights,
    "sigma_max": _sigmas,
}


def _of_series(run: list[Record], quantity: str, values: Tensor) -> Iterator[Departure]:
    """``values`` is [records, parameters]."""
    off, factors = off_course(values, stops=quantity in ("gradient norm", "update norm"))
    steps = [record.step for record in run]
    names = run[0].weights.names
    began = off & ~torch.cat((off.new_zeros(1, off.shape[1]), off[:-1]))
    for row in began.any(1).nonzero().flatten().tolist():
        # What grew, what shrank, what stopped and what is not finite are told apart.
        kinds: dict[int, list[int]] = {}
        for i in began[row].nonzero().flatten().tolist():
            factor = float(factors[row, i])
            kind = _BAD if math.isnan(factor) else _STOPPED if factor == 0 else int(factor > 1)
            kinds.setdefault(kind, []).append(i)
        for columns in kinds.values():
            back = (~off[row:, columns]).any(1).nonzero().flatten()
            yield Departure(
                step=steps[row],
                since=steps[row - 1] if row else steps[row],
                quantity=quantity,
                names=tuple(names[i] for i in columns),
                of=len(names),
                factors=tuple(factors[row, columns].tolist()),
                until=steps[row + int(back[0])] if len(back) else None,
            )


def off_course(values: Tensor, *, stops: bool) -> tuple[Tensor, Tensor]:
    """Which of [records, columns] are off their course, and their factors over the median before them.

    NaN is off for what was finite before; infinity is nothing to be seen. ``stops`` says that zero is off
    too, for what was always there before.
    """
    count, columns = values.shape
    logs = torch.where((values > 0) & values.isfinite(), values.log(), math.nan)
    there = torch.where(values.isinf(), math.nan, (values > 0).double())
    course = logs.clone()  # without what is off
    off = torch.zeros((count, columns), dtype=torch.bool, device="cpu")
    factors = torch.ones((count, columns), dtype=torch.float64, device="cpu")
    for t in range(1, count):
        first = max(0, t - WINDOW)
        before = course[first:t]
        enough = (~before.isnan()).sum(0) >= FEWEST
        middle = before.nanmedian(0).values
        spread = (1.4826 * (before - middle).abs().nanmedian(0).values).clamp(min=_LEAST_SPREAD)
        limit = (_SPREADS * spread).clamp(min=math.log(_FACTOR))
        away = logs[t] - middle
        # A fall says less than a rise: gradients and steps shrink as a loss is solved.
        far = enough & ((away > limit) | (away < -2 * limit))
        sure = away.abs() > 2 * limit
        if t + 1 < count:
            following = logs[t + 1] - middle
            sure |= (following > limit) & (away > 0)
        # What is off is back within half the limit: no flicker at it.
        far = (far & sure) | (enough & off[t - 1] & (away.abs() > 0.5 * limit))
        factors[t] = torch.where(far, away.exp(), 1.0)
        bad = values[t].isnan() & (there[first:t].nan_to_num(0).sum(0) > 0)
        factors[t] = torch.where(bad, math.nan, factors[t])
        off[t] = far | bad
        if stops:
            always = ((there[first:t] > 0).sum(0) >= _ALWAYS) & ~(there[first:t] == 0).any(0)
            begins = always & (there[t : t + _GONE] == 0).all(0) & (t + _GONE <= count)
            gone = (values[t] == 0) & (begins | (off[t - 1] & (factors[t - 1] == 0)))
            factors[t] = torch.where(gone, 0.0, factors[t])
            off[t] |= gone
        course[t] = torch.where(off[t], math.nan, logs[t])
        if t >= SETTLED:
            settled = (off[t - SETTLED + 1 : t + 1] & ~logs[t - SETTLED + 1 : t + 1].isnan()).all(0)
            for i in settled.nonzero().flatten().tolist():
                course[: t - SETTLED + 1, i] = math.nan
                course[t - SETTLED + 1 : t + 1, i] = logs[t - SETTLED + 1 : t + 1, i]
    return off, factors


def _of_rates(run: list[Record]) -> Iterator[Departure]:
    groups = min(len(record.learning_rates) for record in run)
    for group in range(groups):
        rates = [record.learning_rates[group] for record in run]
        above = False
        for t in range(FEWEST, len(rates)):
            before = sorted(rates[max(0, t - WINDOW) : t])
            usual = before[len(before) // 2]
            was, above = above, rates[t] > _FACTOR * usual > 0
            if above and not was:
                back = next((s for s in range(t, len(rates)) if rates[s] <= _FACTOR * usual), None)
                yield Departure(
                    step=run[t].step,
                    since=run[t - 1].step,
                    quantity="learning rate",
                    names=(f"group {group}",),
                    of=groups,
                    factors=(rates[t] / usual,),
                    until=None if back is None else run[back].step,
                )


# --- words -----------------------------------------------------------------------------------------------


def _times(factors: tuple[float, ...]) -> str:
    low, high = min(factors), max(factors)
    if any(math.isnan(factor) for factor in factors):
        return "is not finite"
    if high == 0:
        return "is zero"
    if high / max(low, 1e-300) < 1.5:
        return f"× {high:,.3g}"
    return f"× {low:,.3g} to {high:,.3g}"


def _together(names: Sequence[str]) -> str:
    """Names, those of one layer or module under its name with their number."""
    if len(names) <= _NAMED:
        return ", ".join(names)
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(layer_of(name), []).append(name)
    told = [one[0] if len(one) == 1 else f"{layer} ({len(one)} parameters)" for layer, one in layers.items()]
    more = f" and {len(told) - _NAMED:,} more layers" if len(told) > _NAMED else ""
    return ", ".join(told[:_NAMED]) + more
