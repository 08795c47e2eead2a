"""How the figures look: matplotlib objects made directly, so that pyplot and its settings are not touched."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from pyparam._base.words import plain

# Okabe and Ito's palette without its yellow, which is lost on white: told apart by color-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
INK = "#1A1A1A"
FAINT = "#767676"
RULE = "#D9D9D9"
ALARM = "#B3001B"
SEQUENCE = "viridis"

WIDTH = 6.9  # inches, both columns of a page
FONT = 8.0
SMALL = 7.0


class Plot(Figure):
    """A figure that a notebook shows by itself, also where pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=150)
        return buffer.getvalue()


def new(width: float, height: float) -> Plot:
    figure = Plot(figsize=(width, height), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def grid(figure: Figure, rows: int, columns: int, **options: Any) -> list[list[Axes]]:
    """Axes in the figures' own style, whatever the style in force."""
    made = figure.subplots(rows, columns, squeeze=False, **options)
    for row in made:
        for axes in row:
            style(axes)
    return [list(row) for row in made]


def style(axes: Axes) -> None:
    axes.set_facecolor("white")
    axes.grid(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
        spine.set_linewidth(0.6)
    axes.tick_params(
        which="both", colors=INK, labelsize=SMALL, width=0.6, direction="out", top=False, right=False
    )
    axes.tick_params(which="major", length=3)
    axes.tick_params(which="minor", length=1.5)
    axes.set_axisbelow(True)


def label(axes: Axes, *, x: str = "", y: str = "", title: str = "", title_size: float = FONT) -> None:
    if x:
        axes.set_xlabel(x, fontsize=FONT, color=INK, usetex=False)
    if y:
        axes.set_ylabel(y, fontsize=FONT, color=INK, usetex=False)
    if title:
        axes.set_title(title, fontsize=title_size, color=INK, usetex=False, loc="left")


def note(figure: Figure, text: str) -> None:
    """Lines under the figure that say what was chosen or left out."""
    if text:
        lines = textwrap.wrap(text, int(figure.get_figwidth() * 17))
        figure.supxlabel(
            "\n".join(lines), x=0.01, ha="left", fontsize=SMALL, color=FAINT, usetex=False, parse_math=False
        )


def name_text(name: str, longest: int = 48) -> str:
    """A name as text that is no formula; of a long one the end, from a dot where there is one."""
    text = plain(name)
    if len(text) > longest:
        end = text[1 - longest :]
        _, dot, after = end.partition(".")
        text = "…" + (after if dot and len(after) > longest // 2 else end)
    return text.replace("$", r"\$")


def legend(figure: Figure, handles: Sequence[Any], columns: int) -> None:
    if handles:
        figure.legend(
            handles=list(handles),
            loc="outside upper left",
            ncols=columns,
            fontsize=SMALL,
            frameon=False,
            labelcolor=INK,
            handlelength=1.6,
            columnspacing=1.4,
        )


def log_axis(axes: Axes, which: str, values: Iterable[float]) -> bool:
    """A logarithmic axis with room around the values; linear where there is nothing positive."""
    good = [value for value in values if value > 0 and math.isfinite(value)]
    limits = axes.set_ylim if which == "y" else axes.set_xlim
    if not good:
        limits(0, 1)
        return False
    low, high = min(good), max(good)
    (axes.set_yscale if which == "y" else axes.set_xscale)("log")
    # At least a decade, so that two ticks have labels.
    room = max((high / low) ** 0.06, 1.15)
    low, high = max(low / room, 1e-300), min(high * room, 1e300)
    if high / low < 12:
        middle = math.sqrt(low) * math.sqrt(high)
        low, high = max(middle / 3.5, 1e-300), min(middle * 3.5, 1e300)
    limits(low, high)
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_locator(LogLocator(numticks=7))
    axis.set_minor_formatter(NullFormatter())
    if len(_decades(low, high)) < 2:
        ticks = [
            digit * 10.0**power
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for digit in (1, 2, 5)
            if low <= digit * 10.0**power <= high
        ]
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    return True


def _decades(low: float, high: float) -> range:
    return range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)


def signed_log_axis(axes: Axes, threshold: float, largest: float, apart: float) -> None:
    """A symmetric logarithmic x axis, linear within ``threshold``. Labelled decades are at least ``apart`` of
    half its length away from each other and from zero."""
    scale = 0.4
    axes.set_xscale("symlog", linthresh=threshold, linscale=scale)
    room = largest * 2
    axes.set_xlim(-room, room)
    decades = list(_decades(threshold, room))
    # How far from the middle a decade lies, in decades: a label must clear that of zero.
    middle = scale / 0.9
    half = middle + math.log10(room / threshold)
    clear = [p for p in decades if middle + p - math.log10(threshold) > apart * half]
    every = max(1, math.ceil(apart * half))
    labelled = clear[::-1][::every][::-1]
    ticks = [-(10.0**power) for power in reversed(labelled)] + [0.0] + [10.0**power for power in labelled]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    minor = [sign * 10.0**power for power in decades if power not in labelled for sign in (-1, 1)]
    axes.xaxis.set_minor_locator(FixedLocator(minor))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(_signed_power))


def _signed_power(value: float, _: object) -> str:
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    return rf"${sign}10^{{{round(math.log10(abs(value)))}}}$"
