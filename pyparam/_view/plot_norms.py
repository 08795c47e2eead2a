"""Norms: a row a parameter where there are few, else along the model."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pyparam._base.words import plural
from pyparam._measure.stats import Stats
from pyparam._view import figure as look
from pyparam._view.groups import alike

Array: TypeAlias = np.ndarray[Any, Any]

_ROWS = 40
_GROUPS = 8
_LINED = 400


def draw(stats: Stats) -> Figure:
    columns = {
        "L2 norm": stats.l2.numpy(),
        "RMS": np.nan_to_num(stats.rms.numpy(), nan=0.0),
    }
    bad = (stats.nans + stats.posinfs + stats.neginfs).numpy() > 0
    return _rows(stats, columns, bad) if len(stats) <= _ROWS else _along(stats, columns, bad)


def _rows(stats: Stats, columns: dict[str, Array], bad: Array) -> Figure:
    """A dot chart: names down the side, a column a figure."""
    count = len(stats)
    figure = look.new(look.WIDTH, 0.17 * count + 1.0)
    (axes,) = look.grid(figure, 1, len(columns), sharey=True)
    places = np.arange(count)
    for at, (title, values) in zip(axes, columns.items(), strict=True):
        look.log_axis(at, "x", values.tolist())
        at.hlines(places, 0, 1, transform=at.get_yaxis_transform(), color=look.RULE, linewidth=0.5, zorder=0)
        shown = values > 0
        for chosen, colour in ((shown & ~bad, look.COLOURS[0]), (shown & bad, look.ALARM)):
            if chosen.any():
                at.plot(values[chosen], places[chosen], "o", color=colour, markersize=4)
        for place in places[~shown]:
            _zero(at, 0.01, float(place))
        look.label(at, x=title)
        at.tick_params(axis="y", length=0)
        at.spines["left"].set_visible(False)
    axes[0].set_ylim(count - 0.4, -0.6)
    texts = [look.name_text(name) for name in stats.names]
    axes[0].set_yticks(places, texts, usetex=False)
    for text, is_bad in zip(axes[0].get_yticklabels(), bad, strict=True):
        text.set_color(look.ALARM if is_bad else look.INK)
    look.note(figure, _said(stats, bad, list(columns.values())))
    return figure


def _zero(axes: Axes, x: float, y: float) -> None:
    axes.text(
        x, y, "0", transform=axes.get_yaxis_transform(), ha="left", va="center", fontsize=look.SMALL,
        color=look.COLOURS[1], usetex=False,
    )  # fmt: skip


def _along(stats: Stats, columns: dict[str, Array], bad: Array) -> Figure:
    """A point a parameter in the model's order, those of one name but for its numbers in one colour."""
    groups = alike(stats.names, stats.numel.tolist(), _GROUPS)
    figure = look.new(look.WIDTH, 4.6)
    axes = [row[0] for row in look.grid(figure, len(columns), 1, sharex=True)]
    handles = []
    for at, (title, values) in zip(axes, columns.items(), strict=True):
        look.log_axis(at, "y", values.tolist())
        for i, group in enumerate(groups):
            rows = np.array(group.rows)
            rows = rows[values[rows] > 0]
            rest = i == _GROUPS - 1 and len(groups) == _GROUPS and group.label == "all others"
            colour = "#B0B0B0" if rest else look.COLOURS[i % len(look.COLOURS)]
            lined = len(rows) <= _LINED and not rest
            (line,) = at.plot(
                rows, values[rows], linestyle="-" if lined else "none", linewidth=0.6, color=colour,
                marker="o", markersize=2.6 if len(stats) <= 2000 else 1.2, markeredgewidth=0,
                zorder=1 if rest else 2, rasterized=len(rows) > 5000,
            )  # fmt: skip
            if at is axes[0]:
                text = look.name_text(group.label, 44) + (
                    f" ({len(group.rows):,})" if len(group.rows) > 1 else ""
                )
                handles.append(
                    Line2D(
                        [], [], color=line.get_color(), marker="o", markersize=4, linewidth=0.6, label=text
                    )
                )
        flawed = np.flatnonzero(bad & (values > 0))
        if len(flawed):
            at.plot(
                flawed, values[flawed], "o", markersize=6, markerfacecolor="none", markeredgecolor=look.ALARM,
                markeredgewidth=1.0, zorder=4,
            )  # fmt: skip
        look.label(at, y=title)
        at.set_xlim(-0.01 * len(stats), 1.01 * len(stats))
    look.label(axes[-1], x="parameter, in the model's order")
    look.legend(figure, handles, 2)
    look.note(figure, _said(stats, bad, list(columns.values())))
    return figure


def _said(stats: Stats, bad: Array, columns: list[Array]) -> str:
    parts = [f"{plural(len(stats), 'parameter')}."]
    zero = int((columns[0] <= 0).sum())
    if zero:
        parts.append(f"{zero:,} of norm zero" + (" (0)." if len(stats) <= _ROWS else " (not drawn)."))
    if bad.any():
        parts.append(
            f"{int(bad.sum()):,} with non-finite values (red), whose norms are over the finite ones."
        )
    return " ".join(parts)
