"""Alarms: small rules over what a Monitor measured, which name the parameter and the step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pyparam._watch.records import Record

_NAMED = 3
_SPREADS = 6.0


class Rule(Protocol):
    """What a Monitor's ``alarms`` takes: something with a name that looks at a record and those before it."""

    @property
    def name(self) -> str: ...

    def __call__(self, record: Record, earlier: Sequence[Record]) -> Iterator[tuple[str, str]]:
        """Gives (parameter, words) of each that is wrong; ``earlier`` are the same optimizer's records of the
        same parameters, the oldest first."""
        ...


@dataclass(frozen=True)
class Alarm:
    """What a rule found at one measured step; ``str()`` of it is a sentence."""

    rule: str
    """The rule's name."""
    step: int
    """The measured step it was found at."""
    details: dict[str, str]
    """Parameter to what is said of it, the first in the model's order first."""
    of: int
    """How many parameters were looked at."""
    since: int | None = None
    """The measured step before, at which it was not so; it came up after that."""

    @property
    def names(self) -> list[str]:
        """The parameters that it was found at, in the model's order."""
        return list(self.details)

    def __str__(self) -> str:
        shown = ", ".join(f"{name} ({words})" for name, words in list(self.details.items())[:_NAMED])
        more = len(self.details) - _NAMED
        text = f"{self.rule} at step {self.step}: {shown}" + (
            f" and {more:,} more of {self.of:,}" if more > 0 else ""
        )
        if self.since is not None and self.since < self.step - 1:
            text += f"; it was not so at step {self.since}"
        return text


@dataclass(frozen=True)
class GradientSpike:
    """A gradient's norm ``factor`` times the median of its last ``window`` measured ones, of which there are
    ``fewest``."""

    factor: float = 50.0
    window: int = 10
    fewest: int = 3

    @property
    def name(self) -> str:
        """What an alarm of it is called."""
        return f"gradient × {self.factor:g}"

    def __call__(self, record: Record, earlier: Sequence[Record]) -> Iterator[tuple[str, str]]:
        return _jumps(record, earlier, gradient_norms, self.factor, self.window, self.fewest)


@dataclass(frozen=True)
class UpdateSpike:
    """A step ``factor`` times as long as the median of a parameter's last ``window`` measured ones, of which
    there are ``fewest``, and longer than the spread of those explains."""

    factor: float = 5.0
    window: int = 10
    fewest: int = 4

    @property
    def name(self) -> str:
        """What an alarm of it is called."""
        return f"update × {self.factor:g}"

    def __call__(self, record: Record, earlier: Sequence[Record]) -> Iterator[tuple[str, str]]:
        return _jumps(record, earlier, update_norms, self.factor, self.window, self.fewest)


@dataclass(frozen=True)
class UpdateRatio:
    """A step that moves a matrix by more than ``limit`` of its norm; not one that was all zero before.

    Vectors are left out: biases begin at zero, and any step is long for them.
    """

    limit: float = 0.1

    @property
    def name(self) -> str:
        """What an alarm of it is called."""
        return f"update/weight > {self.limit:g}"

    def __call__(self, record: Record, earlier: Sequence[Record]) -> Iterator[tuple[str, str]]:
        if record.update_ratios is not None:
            ratios = record.update_ratios
            for i in ((ratios > self.limit) & ratios.isfinite()).nonzero().flatten().tolist():
                if len(record.weights._layouts.shape(i)) > 1:
                    yield record.weights.names[i], f"{ratios[i]:.3g}"


@dataclass(frozen=True)
class NoGradient:
    """A parameter whose gradient is missing or zero for ``steps`` steps while others have one."""

    steps: int = 100

    @property
    def name(self) -> str:
        """What an alarm of it is called."""
        return f"no gradient for {self.steps} steps"

    def __call__(self, record: Record, earlier: Sequence[Record]) -> Iterator[tuple[str, str]]:
        return _still(record, earlier, gradient_norms, self.steps, "no gradient")


@dataclass(frozen=True)
class Standstill:
    """A parameter that has moved, and moves no more for ``steps`` steps while others do."""

    steps: int = 20

    @property
    def name(self) -> str:
        """What an alarm of it is called."""
        return f"no update for {self.steps} steps"

    def __call__(self, record: Record, earlier: Sequence[Record]) -> Iterator[tuple[str, str]]:
        moved = [r for r in earlier if r.step <= record.step - self.steps and r.update_norms is not None]
        ever = None
        if moved:
            ever = torch.stack([update_norms(r) for r in moved]).amax(0) > 0
        for name, words in _still(record, earlier, update_norms, self.steps, "no update"):
            if ever is not None and bool(ever[record.weights._positions()[name]]):
                yield name, words


@dataclass(frozen=True)
class LearningRateJump:
    """A learning rate ``factor`` times the one of the measured step before; names the group."""

    factor: float = 5.0

    @property
    def name(self) -> str:
        """What an alarm of it is called."""
        return f"learning rate × {self.factor:g}"

    def __call__(self, record: Record, earlier: Sequence[Record]) -> Iterator[tuple[str, str]]:
        if not earlier:
            return
        for group, (now, before) in enumerate(
            zip(record.learning_rates, earlier[-1].learning_rates, strict=False)
        ):
            if now > self.factor * before > 0:
                yield f"group {group}", f"{before:.3g} to {now:.3g}"


@dataclass(frozen=True)
class SecondMoment:
    """Adam's second moment far below the squares of the gradient it is a mean of: lost or reset.

    The root mean square of ``exp_avg_sq`` was measured with the record (``record.second_moments``, of those
    parameters whose step was long); a healthy one is not below ``fraction`` of the gradient's mean square
    once ``fewest`` records are there.
    """

    fraction: float = 0.05
    fewest: int = 3

    @property
    def name(self) -> str:
        """What an alarm of it is called."""
        return "second moment lost"

    def __call__(self, record: Record, earlier: Sequence[Record]) -> Iterator[tuple[str, str]]:
        if len(earlier) < self.fewest or record.gradients is None:
            return
        norms = torch.stack([gradient_norms(r) for r in earlier[-10:]]).nanmedian(0).values
        position = record.weights._positions()
        for name, mean in record.second_moments.items():
            i = position[name]
            square = float(norms[i]) ** 2 / max(1, int(record.weights.numel[i]))
            if square > 0 and mean < self.fraction * square:
                yield name, f"mean {mean:.3g}, gradients' mean square {square:.3g}"


DEFAULT_RULES: tuple[Rule, ...] = (
    LearningRateJump(),
    GradientSpike(),
    UpdateRatio(),
    UpdateSpike(),
    SecondMoment(),
    NoGradient(),
    Standstill(),
)
"""Every rule with its own limits, as ``Monitor(alarms=DEFAULT_RULES)`` looks for them."""


# --- what rules look at ----------------------------------------------------------------------------------


def gradient_norms(record: Record) -> Tensor:
    """The norm of each row's gradient, in the order of ``record.weights``; 0 for one without."""
    gradients = record.gradients
    if gradients is None:
        return torch.full((len(record.weights),), math.nan, dtype=torch.float64, device="cpu")
    values = gradients.l2 / record.grad_scale
    if gradients.names == record.weights.names:
        return values
    position = record.weights._positions()
    norms = torch.zeros(len(record.weights), dtype=torch.float64, device="cpu")
    rows = [(position[name], i) for i, name in enumerate(gradients.names) if name in position]
    if rows:
        to, of = (torch.tensor(column, dtype=torch.int64, device="cpu") for column in zip(*rows, strict=True))
        norms[to] = values[of]
    return norms


def update_norms(record: Record) -> Tensor:
    if record.update_norms is None:
        return torch.full((len(record.weights),), math.nan, dtype=torch.float64, device="cpu")
    return record.update_norms


def comparable(record: Record, history: Sequence[Record]) -> list[Record]:
    """The records of the same optimizer and parameters."""
    names = record.weights.names
    return [
        r
        for r in history
        if r.optimizer == record.optimizer and (r.weights.names is names or r.weights.names == names)
    ]


def _jumps(
    record: Record, earlier: Sequence[Record], norms_of: _Norms, factor: float, window: int, fewest: int
) -> Iterator[tuple[str, str]]:
    """Norms of a vector under plain SGD vary by several times from batch to batch: what jumps is also beyond
    6 robust deviations (1.4826 times the median absolute one) of the logarithms before."""
    if len(earlier) < fewest:
        return
    before = torch.stack([norms_of(r) for r in earlier[-window:]])
    usual = before.nanmedian(0).values
    now = norms_of(record)
    logs = torch.where(before > 0, before.log(), math.nan)
    spread = 1.4826 * (logs - logs.nanmedian(0).values).abs().nanmedian(0).values
    far = now.log() - usual.log() > _SPREADS * spread.nan_to_num(0)
    for i in ((now > factor * usual) & far & (usual > 0) & now.isfinite()).nonzero().flatten().tolist():
        yield record.weights.names[i], f"{now[i] / usual[i]:,.3g} times its median"


def _still(
    record: Record, earlier: Sequence[Record], norms_of: _Norms, steps: int, what: str
) -> Iterator[tuple[str, str]]:
    first = next((i for i in range(len(earlier) - 1, -1, -1) if earlier[i].step <= record.step - steps), None)
    if first is None:
        return
    seen = torch.stack([norms_of(r) for r in (*earlier[first:], record)])
    quiet = (seen == 0).all(0)
    if bool(quiet.all()):
        return  # nothing at all moves: a learning rate of zero, or no backward pass
    for i in quiet.nonzero().flatten().tolist():
        yield record.weights.names[i], f"{what} since step {earlier[first].step} or longer"


class _Norms(Protocol):
    def __call__(self, record: Record) -> Tensor: ...
