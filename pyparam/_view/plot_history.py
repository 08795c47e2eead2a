"""Norms of layers over steps."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pyparam._measure.stats import Stats
from pyparam._view import figure as look
from pyparam._view import over_steps
from pyparam._view.groups import Group, layers
from pyparam._view.series import Line, draw_lines
from pyparam._watch.records import Record

_LINES = 64


def draw(steps: list[float], items: list[Stats | Record]) -> Figure:
    """Raises ValueError where there are no parameters."""
    weights = [item.weights if isinstance(item, Record) else item for item in items]
    names = list(dict.fromkeys(name for stats in weights for name in stats.names))
    if not names:
        raise ValueError("plot: there is nothing to plot: the history has no parameters")
    shown = over_steps.quantities(steps, items)
    groups, unit = layers(names, _LINES)
    left_out = 0
    if len(groups) > _LINES:
        left_out = len(groups) - _LINES
        groups = [groups[k * len(groups) // _LINES] for k in range(_LINES)]
    panels = [_lines(one, groups, names) for one in shown]
    figure = look.new(look.WIDTH, 0.7 + 1.9 * len(panels))
    axes = [row[0] for row in look.grid(figure, len(panels), 1, sharex=True)]
    draw_lines(figure, axes, panels, markers=len(items) <= 20)
    for at, one, lines in zip(axes, shown, panels, strict=True):
        look.log_axis(at, "y", [value for line in lines for value in line.y])
        look.label(at, y=one.title)
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


def _lines(of: over_steps.Quantity, groups: list[Group], names: list[str]) -> list[Line]:
    made = []
    for group, values in zip(groups, of.grid(groups, names).tolist(), strict=True):
        there = [(x, y) for x, y in zip(of.steps, values, strict=True) if not math.isnan(y)]
        if there:
            made.append(Line(group.label, [x for x, _ in there], [y for _, y in there]))
    return made


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
