"""How many records each writer of a log has had."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any


class Writers:
    def __init__(self) -> None:
        self._had: dict[int, tuple[Callable[[], Any], int]] = {}

    def not_yet(self, writer: Any, made: int) -> int:
        """How many of the ``made`` records this writer had not been given; it has them now."""
        known, had = self._had.get(id(writer), (None, 0))
        if known is None or known() is not writer:  # the number was another's, which is gone
            had = 0
        reference: Callable[[], Any]
        try:
            reference = weakref.ref(writer)
        except TypeError:
            reference = functools.partial(_itself, writer)
        self._had[id(writer)] = (reference, made)
        return made - had


def _itself(writer: Any) -> Any:
    return writer
