"""Where the parameters are: the modules of a model from left to right, each as high as its share."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn.parameter import is_lazy

from pyparam._base.native import _C
from pyparam._base.words import plural, span
from pyparam._inspect.tree import Summary
from pyparam._view import figure as look
from pyparam._view.text import summarize

_LEVELS = 4
_HEIGHT = 5.2
_LEAST = 0.004  # the share below which siblings become one cell
_LINE_INCHES = 0.115
_CHARACTER_INCHES = 0.058


@dataclass
class _Cell:
    label: str
    kind: str  # "12 × Block" for alike modules
    size: int
    node: int = -1  # of the module whose children come next; -1 for none
    count: int = 1  # how many alike modules it stands for
    several: bool = False  # small siblings together


def _values(tensor: Tensor) -> int:
    return 0 if is_lazy(tensor) else tensor.numel()


def draw(source: Any) -> Figure:
    """Raises ValueError for a source without parameters."""
    summary = summarize(source)
    tree = _Tree(summary)
    total = tree.size(0, "")
    if total == 0:
        raise ValueError("plot: there is nothing to plot: the source has no parameters")
    figure = look.new(look.WIDTH, _HEIGHT)
    ((axes,),) = look.grid(figure, 1, 1)
    levels = _draw(axes, tree, _collapsed(tree, _Cell("", "", total, 0)), total)
    axes.set_xlim(0, levels)
    axes.set_ylim(total, 0)
    axes.set_axis_off()
    _label_cells(axes, levels)
    held = summary.parameters
    look.label(
        axes, title=look.name_text(f"{summary.label}: {plural(total, 'value')}".removeprefix(": "), 90)
    )
    parts = ["Height is the share of the values."]
    if held.names != held.tensors:
        parts.append("Shared ones count once, where they come first.")
    if tree.folded:
        parts.append("Alike modules are one cell.")
    look.note(figure, " ".join(parts))
    return figure


class _Tree:
    """Sizes of modules with shared storage counted once."""

    def __init__(self, summary: Summary) -> None:
        self.outline: _C.Outline = summary.outline
        self.folded = False
        # Entries over memory that an earlier one is over already.
        repeats = [entry for cluster in summary.clusters for entry in cluster[1:]]
        parameters = [entry for entry in repeats if not self.outline.entry_is_buffer(entry)]
        self._repeats = set(parameters)
        outline = self.outline
        named = [(outline.entry_name(e), _values(outline.entry_tensor(e))) for e in parameters]
        # Modules met again, which hold what was counted.
        met = [node for node in range(len(outline)) if outline.repeats(node) >= 0]
        named += [(outline.name(node), outline.holding(node, False).values) for node in met]
        named.sort()
        self._names = [name for name, _ in named]
        self._sizes = [size for _, size in named]

    def size(self, node: int, name: str) -> int:
        if self.outline.repeats(node) >= 0:
            return 0
        start = 0 if not name else bisect_left(self._names, name + ".")
        end = len(self._names) if not name else bisect_left(self._names, name + "/")
        return self.outline.holding(node, False).values - sum(self._sizes[start:end])

    def cells(self, cell: _Cell) -> list[_Cell]:
        """What a module holds, sizes of all the alike ones together."""
        outline = self.outline
        made = []
        for entry in range(*outline.own_entries(cell.node)):
            if entry in self._repeats or outline.entry_is_buffer(entry):
                continue
            size = _values(outline.entry_tensor(entry))
            made.append(_Cell(outline.entry_key(entry), "", size * cell.count))
        for first, last, count, one_module in outline.groups(cell.node):
            members = [first] if one_module else self._members(cell.node, first, last)
            size = sum(self.size(member, outline.name(member)) for member in members)
            kind = ""
            if count > 1:
                self.folded = True
                label = outline.label(first)
                kind = f"{count} × {label}" if label else f"{count} alike"
            label = span(outline.series(first, last))
            made.append(_Cell(label, kind, size * cell.count, first, cell.count * len(members)))
        return [cell for cell in made if cell.size > 0]

    def _members(self, parent: int, first: int, last: int) -> list[int]:
        if first == last:
            return [first]
        return [child for child in self.outline.children(parent) if first <= child <= last]


def _draw(axes: Axes, tree: _Tree, root: _Cell, total: int) -> int:
    """Draws what is in ``root``; the number of levels."""
    levels = 1
    stack: list[tuple[_Cell, int, float, Any]] = [(root, -1, 0.0, None)]
    while stack:
        cell, level, top, colour = stack.pop()
        if level >= 0:
            shown = Rectangle((level, top), 1, cell.size, facecolor=colour, edgecolor="white", linewidth=0.8)
            shown.set_gid(cell.label)
            shown.set_label("\n".join(filter(None, (cell.label, cell.kind))))
            axes.add_patch(shown)
            levels = max(levels, level + 1)
        if cell.node < 0 or level + 1 >= _LEVELS:
            continue
        y = top
        for i, child in enumerate(_merged(tree.cells(cell), total)):
            child = _collapsed(tree, child)
            if child.several:
                shade: Any = "#E4E4E4"
            elif level < 0:
                shade = _mixed(look.COLOURS[i % (len(look.COLOURS) - 1)], 0.5)
            else:
                shade = _mixed(colour, 0.75)
            stack.append((child, level + 1, y, shade))
            y += child.size
    return levels


def _collapsed(tree: _Tree, cell: _Cell) -> _Cell:
    """A module that holds one thing and no more, as that thing: "encoder.layer"."""
    for _ in range(1000):
        if cell.node < 0:
            break
        inner = tree.cells(cell)
        if len(inner) != 1 or (cell.kind and inner[0].kind):
            break
        only = inner[0]
        label = f"{cell.label}.{only.label}" if cell.label else only.label
        cell = _Cell(label, cell.kind or only.kind, only.size, only.node, only.count)
    return cell


def _merged(cells: list[_Cell], total: int) -> list[_Cell]:
    small = [cell for cell in cells if cell.size < _LEAST * total]
    if len(small) < 2:
        return cells
    kept = [cell for cell in cells if cell.size >= _LEAST * total]
    return [*kept, _Cell(f"{len(small)} smaller", "", sum(cell.size for cell in small), several=True)]


def _share(part: float) -> str:
    return f"{part:.1%}" if part >= 0.001 else "< 0.1%"


def _mixed(colour: Any, part: float) -> tuple[float, float, float]:
    """A colour lightened towards white."""
    red, green, blue = to_rgb(colour)
    return tuple(1 - part * (1 - channel) for channel in (red, green, blue))  # type: ignore[return-value]


def _label_cells(axes: Axes, levels: int) -> None:
    """Name and share in each cell that is high enough; what alike modules are where two lines fit."""
    longest = max(int(look.WIDTH / levels / _CHARACTER_INCHES), 12)
    total = axes.get_ylim()[0]
    for patch in axes.patches:
        assert isinstance(patch, Rectangle)
        share = patch.get_height() / total
        if share * (_HEIGHT - 0.5) < _LINE_INCHES:
            continue
        name, _, kind = str(patch.get_label()).partition("\n")
        text = look.name_text(name, longest - 7) + f"  {_share(share)}"
        if kind and share * (_HEIGHT - 0.5) > 2.2 * _LINE_INCHES:
            text += "\n" + look.name_text(kind, longest)
        axes.text(
            patch.get_x() + 0.03, patch.get_y() + patch.get_height() / 2, text, ha="left", va="center",
            fontsize=look.SMALL, color=look.INK, usetex=False, clip_on=True, linespacing=1.25,
        )  # fmt: skip
