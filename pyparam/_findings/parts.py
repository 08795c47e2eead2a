"""Which part of a training checkpoint a name is of: see ``_sources.contents``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyparam._sources.contents import SECOND_MOMENTS, Kind, kinds_of

Part = Kind


def parts_of(names: Sequence[str], *, saved: bool, extras: Mapping[str, Any] | None = None) -> list[Part]:
    """The part of each name; ``saved`` for what may be a checkpoint, whose first words are known, and not a
    model, whose modules may be called anything, and ``extras`` for what that holds besides tensors.
    """
    return kinds_of(names, saved=saved, extras=extras)


__all__ = ["SECOND_MOMENTS", "Part", "parts_of"]
