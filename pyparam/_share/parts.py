"""Values of a file as parts of sharded parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pyparam._parts.parts import as_part
from pyparam._parts.place import dtensor_type, place_of


def as_parts(verb: str, values: dict[str, Tensor], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    """The values with those for DTensors cut to this rank's parts, as DTensors that are placed alike.

    Raises TypeError for a DTensor without a block here.
    """
    kind = dtensor_type()
    if kind is None:
        return values
    out = dict(values)
    for name, value in values.items():
        target = wanted.get(name)
        if not isinstance(target, kind):
            continue
        place = place_of(target, f"{verb}: {name!r}")
        for dim, (offset, size) in enumerate(zip(place.offsets, place.sizes, strict=True)):
            value = value.narrow(dim, offset if size else 0, size)
        # Of its own memory: the rest of the file's tensor may go.
        out[name] = as_part(value.contiguous().clone(), target)
    return out
