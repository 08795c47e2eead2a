"""JSON text that may come from anyone, as data of a size that its own can explain."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_FREE_CONTAINERS = 100_000
"""A text may hold so many lists and objects, and one for each eight of its bytes."""


def parsed_json(text: bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Raises ValueError for what is no JSON, not UTF-8, nested too deeply, or of too many parts."""
    if text.count(b"[") + text.count(b"{") > _FREE_CONTAINERS + len(text) // 8:
        raise ValueError("it has too many lists and objects for its size")
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
