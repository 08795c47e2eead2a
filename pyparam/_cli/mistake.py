"""What a command line's user can mend, and how it is told."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import typer

from pyparam._base.words import plain
from pyparam._sources.checkpoint import CheckpointWarning


class Mistake(Exception):
    """What a user can mend; printed without a traceback."""


INTERRUPTED = 130
READER_GONE = 141


@contextlib.contextmanager
def mistakes() -> Iterator[None]:
    """Turns errors that a user can mend into a line on standard error and exit status 2.

    ``PYPARAM_TRACEBACK=1`` lets them through. An interrupt ends with status 130, and a reader of the output
    that goes away with 141, as shells have it, both without a word.
    """
    try:
        with _mistakes_told():
            yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        discard_output()
        raise typer.Exit(READER_GONE) from None


def discard_output() -> None:
    """What is left in the buffer of standard output goes nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a stream of a test has no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _mistakes_told() -> Iterator[None]:
    if os.environ.get("PYPARAM_TRACEBACK", "0") not in ("", "0"):
        yield
        return
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warned  # type: ignore[assignment]
            yield
    except BrokenPipeError:
        raise
    except (Mistake, OSError, TypeError, ValueError, LookupError, AttributeError) as error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        say(text)
        raise typer.Exit(2) from None


def say(text: str) -> None:
    """Tells on standard error. What a file calls things cannot steer a terminal there."""
    typer.echo("\n".join(map(plain, f"pyparam: {text}".split("\n"))), err=True)


def _warned(message: Warning | str, category: type[Warning], filename: str, lineno: int, *more: Any) -> None:
    """A checkpoint's warnings are the file's, and not about a line of Python."""
    text = str(message)
    say(
        text
        if issubclass(category, CheckpointWarning)
        else f"{filename}:{lineno}: {category.__name__}: {text}"
    )
