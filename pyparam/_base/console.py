"""The console that writes with colours."""

from __future__ import annotations

from typing import IO, Any, NoReturn

from rich.console import Console


class PlainEnding(Console):
    """rich's console, which ends the process itself when the reader of the output goes away; this raises."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def console(file: IO[str] | None = None, **options: Any) -> Console:
    """Writes to a file, or to standard output; without guesses at what a text means."""
    return PlainEnding(file=file, highlight=False, **options)
