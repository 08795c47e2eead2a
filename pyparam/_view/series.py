"""Lines over a common axis: told apart by colour where they are few, else coloured along the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pyparam._view import figure as look
from pyparam._view.groups import alike

_FEW = 7
# Told apart in print too.
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))


@dataclass(frozen=True)
class Line:
    name: str
    x: list[float] | list[int]
    y: list[float]
    extra: str = ""


def draw_lines(
    figure: Figure,
    axes: Sequence[Axes],
    panels: Sequence[Sequence[Line]],
    *,
    markers: bool,
    together: bool = False,
) -> None:
    """Draws the lines of each panel, those of a name in one colour, and says which is which.

    ``together`` gives names that differ in their numbers alone one colour, and the rarest of them the last.
    """
    names = list(dict.fromkeys(line.name for lines in panels for line in lines))
    place = {name: i for i, name in enumerate(names)}
    extra = {line.name: line.extra for lines in reversed(panels) for line in lines}
    if together and len(names) > _FEW:
        groups = alike(names, [1] * len(names), _FEW)
        place = {names[i]: g for g, group in enumerate(groups) for i in group.rows}
        extra = {group.label: f"({len(group.rows)})" for group in groups}
        names = [group.label for group in groups]
    few = len(names) <= _FEW
    shades = colormaps[look.SEQUENCE]
    last = max(len(names) - 1, 1)
    for at, lines in zip(axes, panels, strict=True):
        for line in lines:
            i = place[line.name]
            # The yellow end is too faint on white.
            colour = look.COLOURS[i] if few else shades(0.92 * i / last)
            at.plot(
                line.x, [value if value > 0 else math.nan for value in line.y], color=colour,
                linestyle=_DASHES[i] if few else "-", linewidth=1.2 if few else 0.8, label=line.name,
                marker="o" if markers else "", markersize=2.5,
            )  # fmt: skip
    if few and len(names) > 0:
        handles = [
            Line2D(
                [], [], color=look.COLOURS[i], linestyle=_DASHES[i], linewidth=1.2,
                label=look.name_text(name, 40) + (f"  {extra[name]}" if extra[name] else ""),
            )
            for i, name in enumerate(names)
        ]  # fmt: skip
        look.legend(figure, handles, 1 if len(names) == 1 else 2)
    elif names:
        shown = ScalarMappable(Normalize(0, last / 0.92), shades)
        bar = figure.colorbar(shown, ax=list(axes), aspect=30, pad=0.02)
        bar.ax.set_ylim(0, last)
        bar.ax.invert_yaxis()
        bar.outline.set_visible(False)
        ticks = sorted({round(last * k / 4) for k in range(5)})
        bar.ax.set_yticks(ticks, [look.name_text(names[i], 26) for i in ticks], usetex=False)
        bar.ax.tick_params(which="both", labelsize=look.SMALL, colors=look.INK, length=2, width=0.6)
        bar.ax.minorticks_off()
