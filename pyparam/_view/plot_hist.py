"""Histograms of values on a signed logarithmic axis, a panel a parameter or a group of them."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from pyparam._measure.bins import Histogram, histogram_of
from pyparam._measure.stats import Stats
from pyparam._view import figure as look
from pyparam._view.groups import Group, alike

Array: TypeAlias = np.ndarray[Any, Any]

_PANELS = 12
_PER_OCTAVE = 4
# What lies nearer to zero than all but this part of the values is one bar.
_NEAR_ZERO = 1e-3
_DECADES = 8


class _Panel(NamedTuple):
    group: Group
    histogram: Histogram
    values: int
    zeros: int
    nonfinite: int


def draw(stats: Stats) -> Figure:
    """Raises ValueError where no value is finite, or no histogram was counted."""
    bins = stats._counted("plot")
    sizes = stats.numel.tolist()
    bad = (stats.nans + stats.posinfs + stats.neginfs).tolist()
    zeros = stats.zeros.tolist()
    panels = []
    for group in alike(stats.names, sizes, _PANELS):
        counted = histogram_of(bins, group.rows, _PER_OCTAVE)
        numbers = (sum(column[i] for i in group.rows) for column in (sizes, zeros, bad))
        panels.append(_Panel(group, counted, *numbers))
    least = _threshold([panel.histogram for panel in panels])
    if least is None:
        raise ValueError("plot: there is nothing to plot: no value of the source is finite")
    largest = max(
        abs(float(edge)) for p in panels for edge in (*p.histogram.lower[:1], *p.histogram.upper[-1:])
    )
    columns = 1 if len(panels) == 1 else 2 if len(panels) in (2, 4) else 3
    rows = math.ceil(len(panels) / columns)
    size = (4.2, 2.7) if columns == 1 else (look.WIDTH, 1.55 * rows + 0.5)
    figure = look.new(*size)
    axes = look.grid(figure, rows, columns, sharex=True, sharey=True)
    flat = [a for row in axes for a in row]
    heights: list[float] = []
    for panel, at in zip(panels, flat, strict=False):
        heights += _draw_panel(at, panel, least)
    for at in flat[len(panels) :]:
        at.set_visible(False)
    look.signed_log_axis(flat[0], least, max(largest, least * 10), 0.25 if columns == 1 else 0.4)
    flat[0].set_yscale("log")
    flat[0].set_ylim(max(min(heights) / 2, 1e-12), max(heights) * 12)
    flat[0].yaxis.set_major_locator(LogLocator(numticks=5))
    flat[0].yaxis.set_minor_formatter(NullFormatter())
    for i, at in enumerate(flat[: len(panels)]):
        bottom = i + columns >= len(panels)
        look.label(at, x="value" if bottom else "", y="values per octave" if i % columns == 0 else "")
        if bottom:
            at.tick_params(labelbottom=True)
    look.note(figure, _said(stats, panels))
    return figure


def _draw_panel(axes: Axes, panel: _Panel, least: float) -> list[float]:
    """Draws the bars; gives their heights."""
    total = max(int(panel.histogram.counts.sum()), 1)  # a complex number counts as two
    lower, upper = panel.histogram.lower.numpy(), panel.histogram.upper.numpy()
    share = panel.histogram.counts.numpy() / total
    near = np.maximum(np.abs(lower), np.abs(upper)) <= least
    drawn = []
    for side in (upper <= 0, lower >= 0):
        chosen = side & ~near
        if chosen.any():
            low, high = lower[chosen], upper[chosen]
            octaves = np.abs(np.log2(np.abs(high)) - np.log2(np.abs(low)))
            edges, heights = _contiguous(low, high, share[chosen] / octaves)
            axes.stairs(heights, edges, fill=True, color=look.COLOURS[0], linewidth=0)
            drawn += heights[heights > 0].tolist()
    middle = float(share[near].sum())
    if middle > 0:
        axes.stairs([middle], [-least, least], fill=True, color="#A6A6A6", linewidth=0)
        drawn.append(middle)
    look.label(axes, title=look.name_text(panel.group.label, 36), title_size=look.SMALL)
    _corner(axes, "\n".join(_told(panel)), "right", look.FAINT)
    if panel.nonfinite:
        _corner(axes, f"{panel.nonfinite:,} not finite", "left", look.ALARM)
    return drawn


def _corner(axes: Axes, text: str, side: Literal["left", "right"], colour: str) -> None:
    axes.text(
        0.98 if side == "right" else 0.02, 0.97, text, transform=axes.transAxes, ha=side, va="top",
        fontsize=look.SMALL, color=colour, usetex=False, parse_math=False,
    )  # fmt: skip


def _told(panel: _Panel) -> list[str]:
    """How many values there are, and how many of them zero."""
    count, values = len(panel.group.rows), panel.values
    if count == 1:
        lines = [_short(values)]
    elif values % count == 0:
        lines = [f"{count:,} × {_short(values // count)}"]
    else:
        lines = [f"{_short(values)} in {count:,}"]
    finite = int(panel.histogram.counts.sum())
    if panel.zeros == finite > 0:
        lines.append("all zero")
    elif panel.zeros:
        part = panel.zeros / finite
        lines.append(f"{part:.1%} zero" if part > 1e-3 else f"{panel.zeros:,} zero")
    return lines


def _contiguous(lower: Array, upper: Array, share: Array) -> tuple[Array, Array]:
    """Edges and heights with empty bins where there are gaps."""
    edges, heights = [lower[0]], []
    for low, high, height in zip(lower, upper, share, strict=True):
        if low != edges[-1]:
            edges.append(low)
            heights.append(0.0)
        edges.append(high)
        heights.append(height)
    return np.array(edges), np.array(heights)


def _threshold(histograms: list[Histogram]) -> float | None:
    """A power of two below which few values lie; None without values."""
    sizes, counts = [], []
    for histogram in histograms:
        inner = np.minimum(np.abs(histogram.lower.numpy()), np.abs(histogram.upper.numpy()))
        sizes.append(inner)
        counts.append(histogram.counts.numpy())
    size, count = np.concatenate(sizes), np.concatenate(counts)
    if count.sum() == 0:
        return None
    # Zeros, and what only rounds to them, have no place on a logarithmic axis.
    size, count = size[size > 0], count[size > 0]
    if len(size) == 0:
        return 2.0**-10
    order = np.argsort(size)
    size, through = size[order], np.cumsum(count[order])
    small = float(size[np.searchsorted(through, _NEAR_ZERO * through[-1])])
    small = max(small, float(size[-1]) / 10**_DECADES)
    return 2.0 ** min(max(math.floor(math.log2(small)), -1000), 126)


def _short(count: int) -> str:
    for unit, scale in (("G", 10**9), ("M", 10**6), ("k", 10**4)):
        if count >= scale:
            return f"{count / (1000 if unit == 'k' else scale):.3g} {unit}"
    return f"{count:,}"


def _said(stats: Stats, panels: list[_Panel]) -> str:
    parts = ["Shares of the finite values per octave (a doubling); grey: the share of zero and nearly zero."]
    if len(panels) < len(stats):
        parts.insert(0, f"{len(stats):,} parameters in {len(panels)} panels, by name with numbers as *.")
    return " ".join(parts)
