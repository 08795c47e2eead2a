"""Errors of native ops in the words of the function that was called."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, TypeAlias

Kinds: TypeAlias = "type[Exception] | tuple[type[Exception], ...]"
MISTAKES: tuple[type[Exception], ...] = (TypeError, ValueError)

_INDEXED = re.compile(r"\btensors\[(\d+)\]")


class Reworded:
    """A context in which errors of some kinds get other words. Costs nothing when nothing is wrong.

    A class: where a generator raises another error than it was given, Python 3.12 and later tie both and the
    frames between them into a cycle, which keeps the tensors in those frames until the collector runs.
    """

    __slots__ = ("_kinds", "_reword")

    def __init__(self, reword: Callable[[str], str], kinds: Kinds = MISTAKES) -> None:
        self._reword = reword
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, where: TracebackType | None
    ) -> None:
        if raised is None or not isinstance(raised, self._kinds):
            return
        words = str(raised)
        new = self._reword(words)
        if new != words:
            raise type(raised)(new) from None


class Named(Protocol):
    """A table: whatever has the names of what a native op was given, in its order."""

    @property
    def names(self) -> Sequence[str]: ...


def named_errors(table: Named, kinds: Kinds = MISTAKES) -> Reworded:
    """Gives errors of a native op the parameter's name.

    The ops know tensors only and speak of ``tensors[12]``; a person wants ``parameter '0.weight'``.
    """
    return Reworded(
        lambda words: _INDEXED.sub(lambda m: f"parameter {table.names[int(m[1])]!r}", words), kinds
    )


def spoken_by(verb: str, op: str) -> Reworded:
    """An op's errors under the name of the function that was called."""
    return Reworded(lambda words: words.replace(f"{op}:", f"{verb}:", 1))
