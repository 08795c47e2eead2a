"""Which columns of a table are printed: those asked for, or those that a terminal is wide enough for."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from pyparam._cli.mistake import Mistake

Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="NAMES",
        help="The columns to print, with commas; else all, or as many as the terminal is wide enough for.",
        show_default=False,
    ),
]


def fitting(
    asked: str | None, keys: Sequence[str], dropped: Sequence[str]
) -> Callable[[Sequence[Sequence[str]]], list[int]]:
    """A function from rows of text to the positions of the columns to print.

    ``keys`` name all columns, the first of which always stays; ``dropped`` are given up in this order where a
    terminal is too narrow. What is no terminal gets all.
    """
    wanted = list(keys) if asked is None else _named(asked, keys)
    width = shutil.get_terminal_size().columns if asked is None and sys.stdout.isatty() else None

    def fit(rows: Sequence[Sequence[str]]) -> list[int]:
        kept = [keys[0], *(key for key in wanted if key != keys[0])]
        if width is not None:
            need = {key: max((len(row[i]) for row in rows), default=0) for i, key in enumerate(keys)}
            need = {key: longest + 2 if longest else 0 for key, longest in need.items()}
            for key in dropped:
                if sum(need[k] for k in kept) + 2 <= width:
                    break
                if key in kept:
                    kept.remove(key)
        return [keys.index(key) for key in kept]

    return fit


def _named(asked: str, keys: Sequence[str]) -> list[str]:
    names = [name.strip() for name in asked.split(",") if name.strip()]
    unknown = [name for name in names if name not in keys]
    if unknown or not names:
        raise Mistake(
            f"--columns: there is no column {unknown[0] if unknown else asked!r}; there is {', '.join(keys)}"
        )
    return names
