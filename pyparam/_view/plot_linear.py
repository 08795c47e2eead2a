"""Histograms of values on linear axes: a panel a parameter or a group, each with its own axis."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from pyparam._measure.bins import Histogram, histogram_of
from pyparam._measure.stats import Stats
from pyparam._view import figure as look
from pyparam._view.groups import alike

_PANELS = 12
_PER_OCTAVE = 32
_CELLS = 60
_TAIL = 5e-4  # of the values, on each side
_ROOM = 0.5  # of the others' span, up to which a tail is shown all the same


def draw(stats: Stats) -> Figure:
    """Raises ValueError where no value is finite, or no histogram was counted."""
    bins = stats._counted("plot")
    groups = alike(stats.names, stats.numel.tolist(), _PANELS)
    counted = [histogram_of(bins, group.rows, _PER_OCTAVE) for group in groups]
    if not any(len(histogram.counts) for histogram in counted):
        raise ValueError("plot: there is nothing to plot: no value of the source is finite")
    columns = 1 if len(groups) == 1 else 2 if len(groups) in (2, 4) else 3
    rows = math.ceil(len(groups) / columns)
    size = (4.2, 2.7) if columns == 1 else (look.WIDTH, 1.55 * rows + 0.5)
    figure = look.new(*size)
    flat = [axes for row in look.grid(figure, rows, columns) for axes in row]
    for i, (group, histogram, axes) in enumerate(zip(groups, counted, flat, strict=False)):
        if len(histogram.counts):
            edges, shares = cells(histogram)
            axes.stairs(shares, edges, fill=True, color=look.COLOURS[0], linewidth=0)
        axes.set_ylim(bottom=0)
        axes.locator_params(nbins=4)
        look.label(axes, title=look.name_text(group.label, 36), title_size=look.SMALL)
        look.label(axes, x="value", y="share of values" if i % columns == 0 else "")
    for axes in flat[len(groups) :]:
        axes.set_visible(False)
    words = f"Shares of the finite values, in {_CELLS} cells of a linear axis; far tails left out."
    look.note(figure, words)
    return figure


def cells(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """Edges of equal cells and the share of the values in each, those of a bin spread evenly over it."""
    lower, upper, counts = (column.double().numpy() for column in histogram)
    through = np.cumsum(counts)
    first = int(np.searchsorted(through, _TAIL * through[-1], side="right"))
    last = int(np.searchsorted(through, (1 - _TAIL) * through[-1]))
    low, high = lower[first], upper[last]
    span = high - low
    low = lower[0] if lower[0] >= low - _ROOM * span else low
    high = upper[-1] if upper[-1] <= high + _ROOM * span else high
    if not high > low:
        low, high = low - (abs(low) / 2 or 1.0), high + (abs(high) / 2 or 1.0)
    edges = np.linspace(low, high, _CELLS + 1)
    # The share below each edge, linear within a bin; between bins there is nothing.
    places = np.ravel(np.column_stack((lower, np.maximum(upper, np.nextafter(lower, np.inf)))))
    below = np.ravel(np.column_stack((through - counts, through)))
    shares: np.ndarray = np.diff(np.interp(edges, places, below, left=0.0, right=through[-1])) / through[-1]
    return edges, shares
