"""``pyparam show --names``: what a checkpoint lists, of which no value is read."""

from __future__ import annotations

import json
import os

import typer

from pyparam._base.words import dtype_name, plain
from pyparam._cli.mistake import Mistake
from pyparam._sources.chosen import Chosen
from pyparam._sources.gguf import GGUFCheckpoint
from pyparam._sources.path import open as open_checkpoint


def print_names(source: str, select: Chosen | None, as_json: bool) -> None:
    """Prints a line a tensor: its name, type, shape and bytes.

    A pickle that needs code to load is listed as far as that goes without it.
    """
    if not os.path.exists(source):
        raise Mistake(f"--names lists a checkpoint's names, and there is no file {source!r}")
    opened = open_checkpoint(source, refused="list")
    rows = []
    for name in opened:
        if select is not None and not select.matches(name):
            continue
        info = opened.tensor_info(name)
        kind = opened.stored_type(name) if isinstance(opened, GGUFCheckpoint) else dtype_name(info.dtype)
        rows.append({"name": name, "dtype": kind, "shape": list(info.shape), "nbytes": info.nbytes})
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max((len(plain(str(row["name"]))) for row in rows), default=0)
    for row in rows:
        line = f"{plain(str(row['name'])):<{width}}  {row['dtype']}  {row['shape']}  {row['nbytes']:,} B"
        typer.echo(line)
    typer.echo(f"{len(rows):,} of {len(opened):,} tensors" if select else f"{len(rows):,} tensors")
