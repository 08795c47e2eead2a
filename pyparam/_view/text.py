"""``show``: the tree of a model as text, a line a module."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any, NamedTuple, TypeAlias, TypeVar

import torch

from pyparam._base.native import _C
from pyparam._base.words import dtype_name, plain, plural, size, span
from pyparam._inspect.inspector import inspect
from pyparam._inspect.tree import Entry, Row, Summary
from pyparam._sources.stand_in import device_of
from pyparam._sources.table import ParamTable
from pyparam._view.about import About, about
from pyparam._view.here import lines_of
from pyparam._view.memory import memory_of

T = TypeVar("T")

Fit: TypeAlias = "Callable[[Sequence[Sequence[str]]], Sequence[int]]"

_INDENT_LIMIT = 24
_SHOWN_TIES = 10
_ASCII = str.maketrans({"×": "x", "–": "-", "…": "~", "·": "|"})


def show(
    source: Any,
    *,
    depth: int | None = None,
    select: Any = None,
    buffers: bool = False,
    local: bool = False,
    memory: bool = False,
    file: IO[str] | None = None,
) -> None:
    """Prints the tree of a model, a line a module, with repeated blocks folded ("61 × Layer").

    A line has the module's name, class, own tensors with their shapes, dtype and device, and the values
    and bytes of all parameters below it. Consecutive modules that are alike all the way down (classes, names,
    shapes, dtypes, devices, frozen state, and what is tied to what) are one line; what follows it is of one
    of them. Totals count shared storage once and say so.

    Args:
        source: any source; see ``inspect``.
        depth: how many levels to show; None for all (of a model nested deeper than 256 levels, those).
        select: only parameters (and buffers) that ``ParamTable.select`` takes with this pattern.
        buffers: lists buffers beside the parameters; the totals always have them.
        local: of DTensors, whose lines and totals are of the wholes and so the same on all ranks, also says
            how much lies on this one: "120 values of 240 here, 480 B of 960 B".
        memory: also prints the bytes by dtype, and what training with Adam takes: parameters, gradients and
            two moments, each in its parameter's dtype, without activations.
        file: where to print; None for standard output. On a terminal the text has colours.

    Raises:
        TypeError, ValueError, FileNotFoundError: as ``inspect``.
        ValueError: for a negative depth, and where nothing matches ``select``.
    """
    here = lines_of(source, local=local)
    show_fitting(
        source, None, depth=depth, select=select, buffers=buffers, here=here, memory=memory, file=file
    )


def show_fitting(
    source: Any,
    fit: Fit | None,
    *,
    depth: int | None = None,
    select: Any = None,
    buffers: bool = False,
    here: Iterable[str] = (),
    memory: bool = False,
    file: IO[str] | None = None,
) -> None:
    """``show`` with the columns whose positions among ``COLUMNS`` ``fit`` gives for the rows of all cells."""
    summary = summarize(source, select=select)
    lines = list(_lines(summary, depth, buffers, fit))
    told = [*here, *(memory_of(summary.outline).lines() if memory else ())]
    lines += [[Piece(text, "total")] for text in told]
    write_lines(lines, sys.stdout if file is None else file)


def summarize(source: Any, *, select: Any = None) -> Told:
    """The summary that ``show`` prints; ``summarize(source).to_dict()`` is its JSON form."""
    outline, node = inspect(source).__pyparam_outline__()
    label = node.label
    if select is not None:
        return Told(_selected(outline, select), label, None)
    return Told(outline, label, about(node))


class Told(Summary):
    """A summary with what is told of a checkpoint beside its tree."""

    def __init__(self, outline: _C.Outline, label: str, told: About | None) -> None:
        super().__init__(outline, label)
        self.about = told

    def to_dict(self, depth: int | None = None) -> dict[str, Any]:
        """As ``Summary.to_dict``, with ``parts`` (kind, prefix, tensors, values, bytes) and ``facts`` too."""
        return {**super().to_dict(depth), **(About([], []) if self.about is None else self.about).to_dict()}


def _selected(outline: _C.Outline, select: Any) -> _C.Outline:
    count = outline.entry_count()
    names = [outline.entry_name(entry) for entry in range(count)]
    table = ParamTable(names, [outline.entry_tensor(entry) for entry in range(count)])
    kept = set(table.select(select).names)
    if not kept:
        among = plural(count, "parameter or buffer", "parameters and buffers")
        raise ValueError(f"nothing matches {select!r} among {among}")
    return outline.restricted([name in kept for name in names], 0)


# --- lines -----------------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """Text with what it is, which gives it its colour on a terminal."""

    text: str
    role: str = ""


Line = list[Piece]


class _Cells(NamedTuple):
    module: Piece
    type: Piece
    tensors: Piece
    dtype: Piece
    device: Piece
    values: Piece
    bytes: Piece
    state: Piece


HEAD = _Cells(
    *(
        Piece(title, "head")
        for title in ("module", "type", "tensors", "dtype", "device", "values", "bytes", "")
    )
)
RIGHT = {"values", "bytes"}
COLUMNS = _Cells._fields


def _lines(summary: Told, depth: int | None, buffers: bool, fit: Fit | None) -> list[Line]:
    if depth is not None and depth < 0:
        raise ValueError(f"show: depth must not be negative, got {depth}")
    freezes = trains(summary)
    rows = [row_cells(row, buffers, freezes) for row in summary.rows(depth)]
    table = [HEAD, *rows]
    columns = [name for name in COLUMNS if any(getattr(cells, name).text for cells in rows)]
    if fit is not None:
        # A column without text takes no room.
        texts = [
            [piece.text if name in columns else "" for name, piece in zip(COLUMNS, cells, strict=True)]
            for cells in table
        ]
        columns = [COLUMNS[i] for i in fit(texts) if COLUMNS[i] in columns]
    widths = {name: max(len(getattr(cells, name).text) for cells in table) for name in columns}
    lines = []
    for cells in table:
        line: Line = []
        for name in columns:
            text, role = getattr(cells, name)
            padded = text.rjust(widths[name]) if name in RIGHT else text.ljust(widths[name])
            line.append(Piece(padded + "  ", role))
        line[-1] = Piece(line[-1].text.rstrip(), line[-1].role)
        lines.append(line)
    lines.append([])
    told = summary.about
    if told is not None and told.shares:
        # What is all in all says nothing of a model and its moments together: the parts come first.
        lines = [[Piece(told.headline(), "total")], [], *lines]
        lines += [[Piece(share.text(), "total")] for share in told.shares]
        lines += totals(summary, freezes)[1:]
    elif told is not None and told.model is not None and not summary.buffers.names:
        lines += [[Piece(told.model.total(), "total")], *totals(summary, freezes)[1:]]
    else:
        lines += totals(summary, freezes)
    if told is not None:
        lines += [[Piece(line, "dim")] for line in told.lines()]
    return lines


def trains(summary: Summary) -> bool:
    """Whether a row says if it is trainable or frozen."""
    return summary.parameters.trainable > 0 or is_model(summary)


def is_model(summary: Summary) -> bool:
    """Whether freezing means something: a state dict's tensors are neither trainable nor frozen."""
    return summary.outline.label(0) != ""


def row_cells(row: Row, buffers: bool, freezes: bool) -> _Cells:
    own = [entry for entry in row.entries if buffers or not entry.is_buffer]
    name = "  " * min(row.depth, _INDENT_LIMIT)
    if row.depth > _INDENT_LIMIT:
        name += f"({row.depth}) "
    name += plain(span(row.keys)) if row.depth else "(model)"
    held = row.parameters
    times = f"{row.count} × " if row.count > 1 and not row.one_module else ""
    kind = f"{row.count} × {row.type}".rstrip() if row.count > 1 else row.type
    notes = [_tensor(entry) for entry in own]
    if row.repeats is not None:
        notes = [f"= {plain(row.repeats)}"]
    elif row.one_module:
        notes.append("(one module)")
    if row.cut:
        notes.append(f"… {plural(row.modules - 1, 'module')}")
    return _Cells(
        Piece(name, "name"),
        Piece(plain(kind), "type"),
        Piece("  ".join(notes), "tied" if row.repeats is not None else ""),
        # Of a module with tens of thousands of tensors: words for each that there is, and not of each tensor.
        Piece(_common([entry.tensor.dtype for entry in own], dtype_name), "dim"),
        Piece(_common(_devices(own), str), "dim"),
        Piece(f"{times}{held.unique:,}" if held.names else "", "count"),
        Piece(f"{times}{size(held.bytes)}" if held.names else "", "count"),
        Piece(*_state(row, freezes)),
    )


def _tensor(entry: Entry) -> str:
    shape = entry.shape
    if shape is not None:
        told = f"[{', '.join(map(str, shape))}]"
    else:
        told = "uninitialized" if entry.uninitialized else "[?]"
    text = f"{plain(entry.key)} {told}"
    if entry.is_buffer:
        text += " (buffer)"
    if entry.first is not None:
        text += " (tied)" if entry.first == entry.name else f" = {plain(entry.first)}"
    return text


def _common(values: list[T], text: Callable[[T], str]) -> str:
    """The one value that all have, or those there are, in words."""
    return ", ".join(map(text, dict.fromkeys(values)))


def _devices(entries: list[Entry]) -> list[torch.device]:
    found = [entry.tensor.device for entry in entries]
    if any(device.type == "meta" for device in set(found)):
        return [device_of(entry.tensor) for entry in entries]
    return found


def _state(row: Row, freezes: bool) -> tuple[str, str]:
    held = row.parameters
    if not freezes or held.unique == 0:
        return "", ""
    if held.trainable == held.unique:
        return "trainable", "trainable"
    if held.trainable == 0:
        return "frozen", "frozen"
    return f"{held.trainable:,} trainable", "partly"


def totals(summary: Summary, freezes: bool) -> list[Line]:
    lines: list[Line] = []
    held = summary.parameters
    text = f"{plural(held.unique, 'value')} in {plural(held.tensors, 'parameter')}, {size(held.bytes)}"
    if freezes and held.unique:
        frozen = held.unique - held.trainable
        text += (
            ", all trainable"
            if frozen == 0
            else ", all frozen"
            if held.trainable == 0
            else f", {held.trainable:,} trainable and {frozen:,} frozen"
        )
    lines.append([Piece(text, "total")])
    if held.names != held.tensors or held.values != held.unique:
        lines.append(
            [
                Piece(
                    f"shared storage is counted once: {plural(held.names, 'name')} list "
                    f"{plural(held.values, 'value')}",
                    "tied",
                )
            ]
        )
    if summary.buffers.names:
        held = summary.buffers
        text = f"{plural(held.unique, 'value')} in {plural(held.tensors, 'buffer')}, {size(held.bytes)}"
        lines.append([Piece(text, "total")])
    lines.append([Piece(plural(summary.modules, "module"), "total")] if is_model(summary) else [])
    for names in summary.tied_names(_SHOWN_TIES):
        shown = " = ".join(map(plain, names[:6])) + (f" = … ({len(names)} names)" if len(names) > 6 else "")
        lines.append([Piece(f"tied: {shown}", "tied")])
    more = len(summary.clusters) - _SHOWN_TIES
    if more > 0:
        lines.append([Piece(f"tied: … {more:,} more", "tied")])
    return [line for line in lines if line]


# --- printing --------------------------------------------------------------------------------------------

_STYLES = {
    "head": "bold",
    "name": "bold cyan",
    "type": "green",
    "dim": "dim",
    "count": "",
    "trainable": "green",
    "frozen": "blue",
    "partly": "yellow",
    "tied": "magenta",
    "total": "bold",
}


def write_lines(lines: list[Line], file: IO[str]) -> None:
    """Plain text of the same width everywhere; colours on a terminal alone."""
    if getattr(file, "isatty", lambda: False)():
        write: Callable[[list[Line], IO[str]], None] = _write_coloured
    else:
        write = _write_plain
    write(lines, file)


def _write_plain(lines: list[Line], file: IO[str]) -> None:
    text = "".join("".join(piece.text for piece in line).rstrip() + "\n" for line in lines)
    encoding = getattr(file, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    file.write(text)


def _write_coloured(lines: list[Line], file: IO[str]) -> None:
    from rich.text import Text

    from pyparam._base.console import console

    out = console(file)
    for line in lines:
        text = Text()
        for piece in line:
            text.append(piece.text, style=_STYLES.get(piece.role, ""))
        out.print(text, soft_wrap=True)
