"""Norms of layers over steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pyparam._measure.stats import Stats
from pyparam._view import figure as look
from pyparam._view.groups import Group, layers
from pyparam._view.series import Line, draw_lines
from pyparam._watch.records import Record

_LINES = 64


class _Sums:
    """Sums of squares and numbers of elements by name, one of them a step: what layers add up from."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.steps: list[float] = []
        self.squares: list[dict[str, float]] = []
        self.divisors: list[dict[str, float]] = []

    def add(self, step: float, names: Sequence[str], squares: list[float], divisors: list[float]) -> None:
        self.steps.append(step)
        self.squares.append(dict(zip(names, squares, strict=True)))
        self.divisors.append(dict(zip(names, divisors, strict=True)))

    def lines(self, groups: list[Group], names: Sequence[str]) -> list[Line]:
        made = []
        for group in groups:
            members = [names[i] for i in group.rows]
            x, y = [], []
            for step, squares, divisors in zip(self.steps, self.squares, self.divisors, strict=True):
                there = [name for name in members if name in squares]
                if there:
                    over = sum(divisors[name] for name in there)
                    x.append(step)
                    y.append(math.sqrt(sum(squares[name] for name in there) / over) if over > 0 else math.nan)
            if x:
                made.append(Line(group.label, x, y))
        return made


def draw(steps: list[float], items: list[Stats | Record]) -> Figure:
    """Raises ValueError where there are no parameters."""
    weights = [item.weights if isinstance(item, Record) else item for item in items]
    names = list(dict.fromkeys(name for stats in weights for name in stats.names))
    if not names:
        raise ValueError("plot: there is nothing to plot: the history has no parameters")
    sums = [panel for panel in _panels(steps, items, weights) if panel.steps]
    groups, unit = layers(names, _LINES)
    left_out = 0
    if len(groups) > _LINES:
        left_out = len(groups) - _LINES
        groups = [groups[k * len(groups) // _LINES] for k in range(_LINES)]
    panels = [panel.lines(groups, names) for panel in sums]
    figure = look.new(look.WIDTH, 0.7 + 1.9 * len(panels))
    axes = [row[0] for row in look.grid(figure, len(panels), 1, sharex=True)]
    draw_lines(figure, axes, panels, markers=len(items) <= 20)
    for at, panel, lines in zip(axes, sums, panels, strict=True):
        look.log_axis(at, "y", [value for line in lines for value in line.y])
        look.label(at, y=panel.title)
    flawed = _mark_nonfinite(axes[0], steps, weights)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    look.label(axes[-1], x="step")
    parts = []
    if unit == "layer":
        parts.append(f"A line a layer, of {len(names):,} parameters.")
    if left_out:
        parts.append(f"{len(groups)} layers evenly spaced, {left_out:,} not drawn.")
    if flawed:
        parts.append("Red crosses: steps with non-finite weights; figures are over the finite ones.")
    look.note(figure, " ".join(parts))
    return figure


def _panels(steps: list[float], items: list[Stats | Record], weights: list[Stats]) -> list[_Sums]:
    of_weights, of_gradients, of_updates = (
        _Sums("RMS of weights"),
        _Sums("RMS of gradients"),
        _Sums("update / weight"),
    )
    for step, item, stats in zip(steps, items, weights, strict=True):
        of_weights.add(step, stats.names, _squares(stats), stats.numel.double().tolist())
        if not isinstance(item, Record):
            continue
        if item.gradients is not None and len(item.gradients):
            squares = [value / item.grad_scale**2 for value in _squares(item.gradients)]
            of_gradients.add(step, item.gradients.names, squares, item.gradients.numel.double().tolist())
        if item.update_norms is not None and item.update_ratios is not None:
            # The norm before the step: what the change is the ratio of.
            ratios = item.update_ratios
            before = torch.where(ratios > 0, item.update_norms / ratios, stats.l2)
            of_updates.add(step, stats.names, item.update_norms.square().tolist(), before.square().tolist())
    return [of_weights, of_gradients, of_updates]


def _squares(stats: Stats) -> list[float]:
    squares: list[float] = stats.l2.square().tolist()
    return squares


def _mark_nonfinite(axes: Axes, steps: list[float], weights: list[Stats]) -> bool:
    bad = [step for step, stats in zip(steps, weights, strict=True) if stats.nonfinite()]
    if bad:
        axes.add_line(
            Line2D(
                bad, np.full(len(bad), 0.03), transform=axes.get_xaxis_transform(), color=look.ALARM,
                marker="x", linestyle="none", markersize=5, clip_on=False,
            )
        )  # fmt: skip
    return bool(bad)
