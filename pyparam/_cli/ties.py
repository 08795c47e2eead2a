"""``pyparam ties``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import torch
import typer

from pyparam._base.words import plain, plural, size
from pyparam._cli.mistake import mistakes
from pyparam._cli.options import Arguments, Meta, Source
from pyparam._cli.source import load
from pyparam._cli.terminal import working
from pyparam._share.ties import tie_sets, ties_of
from pyparam._sources import table_of
from pyparam._sources.table import ParamTable
from pyparam._sources.tied import Layout, Tie, tie_to_json

_NAMES = 6
_SIGNS = {"parameter": " = ", "storage": " = ", "overlap": " ~ "}


def ties(
    source: Source,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    meta: Meta = False,
    arguments: Arguments = None,
    buffers: Annotated[bool, typer.Option("--buffers", help="Look at buffers too.")] = False,
) -> None:
    """Lists the names that share memory, a line a tie.

    "parameter" is one object under several names, "storage" several objects over the same bytes, "overlap"
    views that have some bytes in common.

    Exit status: 0 with or without ties, 2 after a mistake.

    JSON: ties (a list: kind, names, exact and each one's layout), names (how many there are), shared_bytes.

    \b
    Examples:
      pyparam ties model.safetensors
      pyparam ties mypackage.models:build --meta
      pyparam ties checkpoint.pt --json | jq '.ties[].names'
    """
    with mistakes():
        with working(f"looking for ties in {source}"):
            table = table_of(
                load(source, meta=meta, arguments=arguments),
                buffers=buffers,
                remove_duplicate=False,
                values=False,
            )
            found = ties_of(table)
        shared = _shared_bytes(table) if found else 0
        if as_json:
            told: dict[str, Any] = {
                "ties": [tie_to_json(tie) for tie in found],
                "names": len(table),
                "shared_bytes": shared,
            }
            typer.echo(json.dumps(told, indent=2))
            return
        for line in _lines(table, found, shared):
            typer.echo(line)


def _shared_bytes(table: ParamTable) -> int:
    """The bytes that more than one name holds, counted once."""
    sets = tie_sets(table)
    names = torch.bincount(sets.group, minlength=len(table))
    return int(sets.bytes[names[sets.group] > 1].sum())


def _lines(table: ParamTable, found: list[Tie], shared: int) -> list[str]:
    if not found:
        return [f"no ties: no two of {plural(len(table), 'name')} share memory"]
    names = sum(len(tie.names) for tie in found)
    lines = [
        f"{plural(len(found), 'tie')}: {names:,} of {plural(len(table), 'name')} share {size(shared)}",
        "",
    ]
    return lines + [line for tie in found for line in _tie(table, tie)]


def _tie(table: ParamTable, tie: Tie) -> list[str]:
    head = f"{tie.kind:<9}  "
    if tie.kind != "overlap":
        return [f"{head}{_joined(tie)}  {_described(table, tie.names[0])}"]
    note = "" if tie.exact else "  (not exact: their bounding intervals meet)"
    lines = [f"{head}{_joined(tie)}{note}"]
    for name, layout in list(zip(tie.names, tie.layouts, strict=True))[:_NAMES]:
        lines.append(f"{'':<9}    {plain(name)}: {_described(table, name)}{_place(layout)}")
    return lines


def _joined(tie: Tie) -> str:
    shown = [plain(name) for name in tie.names[:_NAMES]]
    more = len(tie.names) - len(shown)
    text = _SIGNS[tie.kind].join(shown)
    return text + (f"{_SIGNS[tie.kind]}… ({len(tie.names):,} names)" if more else "")


def _described(table: ParamTable, name: str) -> str:
    tensor = table[name]
    if torch.nn.parameter.is_lazy(tensor):
        return "uninitialized"
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _place(layout: Layout | None) -> str:
    return "" if layout is None else f", from byte {layout.offset:,}, strides {list(layout.stride)}"
