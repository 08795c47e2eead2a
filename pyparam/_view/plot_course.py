"""Where training stands: layers over steps as heat maps, and in words what left its course."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyparam._measure.stats import Stats
from pyparam._view import figure as look
from pyparam._view.over_steps import Course, course
from pyparam._watch.course import Departure, departures
from pyparam._watch.records import Record

_LAYERS = 48
_TOLD = 6


def draw(steps: list[float], items: list[Stats | Record]) -> Figure:
    """Raises ValueError where there are no parameters."""
    try:
        seen = course(steps, items, _LAYERS)
    except ValueError as error:
        raise ValueError(f"plot: {error}") from None
    records = [item for item in items if isinstance(item, Record)]
    found = departures(records)
    high = 0.5 + 0.045 * max(12, len(seen.groups))
    figure = look.new(look.WIDTH, 0.7 + high * len(seen.grids) + 0.13 * min(len(found), _TOLD))
    rows = look.grid(figure, len(seen.grids), 1, sharex=True)
    for (axes,), (title, grid) in zip(rows, seen.grids.items(), strict=True):
        _panel(figure, axes, title, grid.numpy(), seen)
    last = rows[-1][0]
    every = max(1, len(seen.steps) // 8)
    last.set_xticks(range(0, len(seen.steps), every), [f"{step:g}" for step in seen.steps[::every]])
    look.label(last, x="step")
    column = {step: t for t, step in enumerate(seen.steps)}
    for departure in found:
        marks: list[float] = sorted(
            {seen.row_of[name] for name in departure.names if name in seen.row_of}
        ) or [-0.7]
        x = column[departure.step]
        for (axes,), title in zip(rows, seen.grids, strict=True):
            if _PANEL.get(departure.quantity) == title or (marks == [-0.7] and axes is rows[0][0]):
                axes.plot(
                    [x] * len(marks), marks, linestyle="none", marker="|" if marks[0] >= 0 else "v",
                    color=look.ALARM, markersize=4, clip_on=False,
                )  # fmt: skip
    look.note(figure, _words(found))
    return figure


_PANEL = {
    "gradient norm": "RMS of gradients",
    "update norm": "update / weight",
    "weight norm": "RMS of weights",
    "sigma_max": "sigma_max",
}


def _panel(figure: Figure, axes: Axes, title: str, values: np.ndarray, seen: Course) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = np.where((values > 0) & np.isfinite(values), np.log10(values), np.nan)
    image = axes.imshow(levels, aspect="auto", cmap=colormaps[look.SEQUENCE], interpolation="nearest")
    for mask, marker in ((values == 0, "."), (np.isinf(values), "x")):
        ys, xs = np.nonzero(mask)
        axes.plot(xs, ys, linestyle="none", marker=marker, color=look.ALARM, markersize=2.5)
    count = len(seen.groups)
    every = max(1, -(-count // 12))
    labels = [look.name_text(group.label, 24) for group in seen.groups]
    axes.set_yticks(range(0, count, every), labels[::every], usetex=False)
    axes.tick_params(axis="y", length=0, labelsize=look.SMALL - 1)
    bar = figure.colorbar(image, ax=axes, aspect=12, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=look.SMALL, colors=look.INK, length=2, width=0.6)
    bar.ax.set_ylabel("log10", fontsize=look.SMALL, color=look.INK)
    look.label(axes, title=title)


def _words(found: list[Departure]) -> str:
    told = [str(departure) for departure in found[:_TOLD]]
    more = f"{len(found) - _TOLD:,} more departures" if len(found) > _TOLD else ""
    parts = [*told, *([more] if more else [])]
    key = "Red: it left its course there; dots: zeros; crosses: not finite; white: nothing known."
    return ". ".join([*parts, key]) if parts else f"Nothing left its course. {key}"
