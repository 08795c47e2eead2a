"""Groups by members: the root mean square of each parameter as a heat map, a row a group."""

from __future__ import annotations

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from pyparam._measure.stats import Grouped
from pyparam._view import figure as look

_MOST = 60


def draw(groups: Grouped) -> Figure:
    """Raises ValueError where there are no groups."""
    labels = list(groups.members)
    if not labels:
        raise ValueError("plot: there is nothing to plot: no parameter is in a group")
    left_out = max(0, len(labels) - _MOST)
    labels = labels[:_MOST]
    parts = groups.parts
    place = {name: i for i, name in enumerate(parts.names)}
    rms = parts.rms.tolist()
    bad = (parts.nans + parts.posinfs + parts.neginfs).tolist()
    widest = max(len(groups.members[label]) for label in labels)
    levels = np.full((len(labels), widest), np.nan)
    flawed = []
    for y, label in enumerate(labels):
        for x, name in enumerate(groups.members[label]):
            row = place[name]
            levels[y, x] = math.log10(rms[row]) if rms[row] > 0 else np.nan
            if bad[row]:
                flawed.append((x, y))
    figure = look.new(look.WIDTH, 1.1 + 0.17 * len(labels))
    axes = look.grid(figure, 1, 1)[0][0]
    shades = colormaps[look.SEQUENCE]
    image = axes.imshow(levels, aspect="auto", cmap=shades, interpolation="nearest")
    axes.set_yticks(range(len(labels)), [look.name_text(label, 32) for label in labels], usetex=False)
    axes.tick_params(axis="y", length=0)
    if flawed:
        xs, ys = zip(*flawed, strict=True)
        axes.plot(xs, ys, linestyle="none", marker="x", color=look.ALARM, markersize=4)
    bar = figure.colorbar(image, ax=axes, aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=look.SMALL, colors=look.INK, length=2, width=0.6)
    bar.ax.set_ylabel("log10 of RMS", fontsize=look.SMALL, color=look.INK)
    look.label(axes, x="member, in the model's order")
    words = [f"{len(parts):,} parameters by {groups.what}; white: none, or zero throughout."]
    if left_out:
        words.append(f"The first {_MOST} of {len(groups.members):,} groups.")
    if flawed:
        words.append("Red crosses: values that are not finite.")
    look.note(figure, " ".join(words))
    return figure
