"""A history as figures of layers over steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyparam._measure.stats import Stats
from pyparam._view.groups import Group, layers
from pyparam._watch.records import Record

WEIGHTS, GRADIENTS = "RMS of weights", "RMS of gradients"
NOISE = "gradient noise, in batches"
WINDOW = 10
"""Changes from record to record that the fluctuation of a gradient is taken over."""
_FEWEST = 4


@dataclass
class Quantity:
    """Sums over parameters, one of them a step, that layers' figures are made of: the root of their quotient,
    or their quotient."""

    title: str
    root: bool = True
    steps: list[float] = field(default_factory=list)
    _added: list[tuple[Sequence[str], Tensor, Tensor]] = field(default_factory=list)

    def add(self, step: float, names: Sequence[str], above: Tensor, below: Tensor) -> None:
        """Both are [names]."""
        self.steps.append(step)
        self._added.append((names, above.double(), below.double()))

    def grid(self, groups: Sequence[Group], names: Sequence[str]) -> Tensor:
        """float64 [groups, steps]; NaN where a group had no parameter, or nothing to divide by."""
        group_of = {names[i]: g for g, group in enumerate(groups) for i in group.rows}
        made = torch.full((len(self._added), len(groups)), math.nan, dtype=torch.float64, device="cpu")
        known: Sequence[str] = ()
        rows = places = torch.empty(0, dtype=torch.int64, device="cpu")
        for t, (own, above, below) in enumerate(self._added):
            if own is not known:
                at = [(i, group_of[name]) for i, name in enumerate(own) if name in group_of]
                rows, places = torch.tensor(at, dtype=torch.int64, device="cpu").reshape(-1, 2).unbind(1)
                known = own
            sums = torch.zeros(2, len(groups), dtype=torch.float64, device="cpu")
            sums.index_add_(1, places, torch.stack((above, below))[:, rows])
            made[t] = torch.where(sums[1] > 0, sums[0] / sums[1], math.nan)
        return (made.clamp(min=0).sqrt() if self.root else made).t()


def quantities(steps: Sequence[float], items: Sequence[Stats | Record]) -> list[Quantity]:
    """Those that the history has: weights, gradients, update over weight, gradient noise."""
    weights, gradients = Quantity(WEIGHTS), Quantity(GRADIENTS)
    updates, noise = Quantity("update / weight"), Quantity(NOISE, root=False)
    for step, item in zip(steps, items, strict=True):
        stats = item.weights if isinstance(item, Record) else item
        weights.add(step, stats.names, stats.l2.square(), stats.numel)
        if not isinstance(item, Record):
            continue
        if item.gradients is not None and len(item.gradients):
            squares = (item.gradients.l2 / item.grad_scale).square()
            gradients.add(step, item.gradients.names, squares, item.gradients.numel)
        if item.update_norms is not None and item.update_ratios is not None:
            # The norm before the step: what the change is the ratio of.
            ratios = item.update_ratios
            before = torch.where(ratios > 0, item.update_norms / ratios, stats.l2)
            updates.add(step, stats.names, item.update_norms.square(), before.square())
        if item.gradient_variance is not None and item.gradient_signal is not None:
            variance, signal = item.gradient_variance, item.gradient_signal
            noise.add(step, stats.names, variance.nan_to_num(0), signal.nan_to_num(0))
    return [quantity for quantity in (weights, gradients, updates, noise) if quantity.steps]


def fluctuation(gradients: Tensor) -> Tensor:
    """How much norms of gradients, [layers, steps], fluctuate from step to step: of the changes of their
    logarithms over the last 10 steps 1.4826 times the median magnitude, over the root of 2.

    The deviation of the logarithm of a norm that is drawn anew at each step (robust, and without what a
    trend adds): 0.1 is a tenth of the norm. NaN before there are 4 changes.
    """
    logs = torch.where(gradients > 0, gradients.log(), math.nan)
    changes = logs.diff(dim=1).abs()
    made = torch.full_like(gradients, math.nan)
    for t in range(1, gradients.shape[1]):
        window = changes[:, max(0, t - WINDOW) : t]
        enough = (~window.isnan()).sum(1) >= _FEWEST
        middle = window.nanmedian(1).values
        made[:, t] = torch.where(enough, 1.4826 * middle / math.sqrt(2), math.nan)
    return made


@dataclass(frozen=True)
class Course:
    """Where training stood: quantities of layers at each measured step."""

    steps: list[float]
    groups: list[Group]
    row_of: dict[str, int]
    """Of each parameter."""
    grids: dict[str, Tensor]
    """float64 [layers, steps] by title; NaN where nothing is known, infinite where it is not finite."""


def course(steps: Sequence[float], items: Sequence[Stats | Record], limit: int) -> Course:
    """Of at most ``limit`` layers, of more evenly spaced ones.

    Raises ValueError where there are no parameters.
    """
    stats = [item.weights if isinstance(item, Record) else item for item in items]
    names = list(dict.fromkeys(name for one in stats for name in one.names))
    if not names:
        raise ValueError("there is nothing to plot: the history has no parameters")
    groups, _ = layers(names, limit)
    if len(groups) > limit:
        groups = [groups[k * len(groups) // limit] for k in range(limit)]
    every = sorted(set(steps))
    column = {step: t for t, step in enumerate(every)}
    group_of = {names[i]: g for g, group in enumerate(groups) for i in group.rows}

    def empty() -> Tensor:
        return torch.full((len(groups), len(every)), math.nan, dtype=torch.float64, device="cpu")

    grids: dict[str, Tensor] = {}
    for quantity in quantities(steps, items):
        grid = grids[quantity.title] = empty()
        for step, values in zip(quantity.steps, quantity.grid(groups, names).t(), strict=True):
            # Several optimizers have records of one step.
            at = column[step]
            grid[:, at] = torch.where(values.isnan(), grid[:, at], values)
    if GRADIENTS in grids:
        spread = fluctuation(grids[GRADIENTS])
        if not bool(spread.isnan().all()):
            grids["fluctuation of gradients"] = spread
    for step, item in zip(steps, items, strict=True):
        at = column[step]
        bad = {WEIGHTS: item.weights if isinstance(item, Record) else item}
        if isinstance(item, Record) and item.gradients is not None:
            bad[GRADIENTS] = item.gradients
        for title, own in bad.items():
            for name in own.nonfinite():
                if title in grids and name in group_of:
                    grids[title][group_of[name], at] = math.inf
        if isinstance(item, Record) and item.sigma_max is not None:
            grid = grids.setdefault("sigma_max", empty())
            for name, value in zip(item.weights.names, item.sigma_max.tolist(), strict=True):
                if name in group_of and not math.isnan(value):
                    before = float(grid[group_of[name], at])
                    grid[group_of[name], at] = value if math.isnan(before) else max(before, value)
    return Course(every, groups, group_of, grids)
