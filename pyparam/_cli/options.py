"""Arguments and options that several commands have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer

from pyparam._sources.chosen import Chosen

# What a path ends with that is a checkpoint; completion offers these and directories.
_CHECKPOINTS = (
    ".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pt2", ".gguf", ".npz", ".npy", ".jit", ".pkl",
    ".index.json",
)  # fmt: skip


def complete_source(incomplete: str) -> list[str]:
    """What a shell may complete SOURCE to: 'demo', directories, and files that look like checkpoints."""
    folder, start = os.path.split(incomplete)
    try:
        entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
    except OSError:
        entries = []
    found = []
    for entry in entries:
        hidden = entry.name.startswith(".") and not start.startswith(".")
        if hidden or not entry.name.startswith(start):
            continue
        if entry.is_dir():
            found.append(os.path.join(folder, entry.name) + os.sep)
        elif entry.name.endswith(_CHECKPOINTS):
            found.append(os.path.join(folder, entry.name))
    return [*(["demo"] if "demo".startswith(incomplete) else []), *found]


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A checkpoint's path (or a directory of shards), package.module:factory, or 'demo'.",
        show_default=False,
        autocompletion=complete_source,
    ),
]
Meta = Annotated[
    bool,
    typer.Option(
        "--meta",
        help="Build on the meta device, without memory: what package.module:factory makes, or the model "
        "that a transformers config.json describes.",
    ),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option(
        "--arg",
        metavar="NAME=VALUE",
        help="An argument of package.module:factory, a Python literal or else a string; several times.",
        show_default=False,
    ),
]


Part = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="PART",
        help="Only a part of a checkpoint: model, average, optimizer, or a prefix of its nested keys.",
        show_default=False,
    ),
]


Select = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        metavar="GLOB",
        help="Only parameters whose names match; several times: any of them.",
        show_default=False,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="GLOB",
        help="Without parameters whose names match; several times.",
        show_default=False,
    ),
]
Sort = Annotated[
    str | None,
    typer.Option("--sort", metavar="COLUMN", help="Order by a column, largest first.", show_default=False),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", min=0, metavar="N", help="Show N rows; else 200, in JSON all.", show_default=False
    ),
]
ROWS = 200
"""Rows that are shown without ``--limit``."""


def choice(select: Sequence[str] | None, exclude: Sequence[str] | None) -> Chosen | None:
    """What ``--select`` and ``--exclude`` take together; None for everything."""
    return Chosen(select or (), exclude or ()) if select or exclude else None
