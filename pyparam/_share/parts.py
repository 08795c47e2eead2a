"""Values of a file as parts of sharded parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyparam._parts.parts import as_part, parts_of
from pyparam._parts.place import dtensor_type
from pyparam._sources.distributed import DistributedCheckpoint
from pyparam._sources.table import ParamTable


def as_parts(
    verb: str,
    values: dict[str, Tensor],
    wanted: Mapping[str, Any],
    source: DistributedCheckpoint | None = None,
    pieces: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """The values with those for DTensors cut to this rank's parts, as DTensors that are placed alike. Those
    that only stand for what lies in pieces in ``source``, under the names that ``pieces`` gives, are read.

    Raises ValueError for another shape, TypeError for a DTensor without a block here, and for a value that is
    a DTensor where the target is none, or is placed otherwise: nothing is communicated.
    """
    kind = dtensor_type()
    if kind is None:
        return values
    names = [name for name in values if isinstance(wanted.get(name), kind)]
    given = [name for name, value in values.items() if isinstance(value, kind)]
    if not names and not given:
        return values
    parts = parts_of(verb, ParamTable(names, [wanted[name] for name in names]))
    theirs = parts_of(verb, ParamTable(given, [values[name] for name in given]), " of the source")
    row_of = {name: row for row, name in enumerate(given)}
    for name in given:
        if isinstance(wanted.get(name), Tensor) and not isinstance(wanted[name], kind):
            raise TypeError(
                f"{verb}: {name!r} is a DTensor in the source and none in the model; full_tensor() gathers it"
            )
    out = dict(values)
    for row, name in enumerate(names):
        place = parts.place(row)
        if tuple(out[name].shape) != place.whole:
            raise ValueError(
                f"{verb}: {name!r} has shape {list(out[name].shape)} in the source, expected "
                f"{list(place.whole)}"
            )
        if name in row_of:
            other = theirs.place(row_of[name])
            if other.layout != place.layout:
                raise TypeError(
                    f"{verb}: {name!r} is a DTensor placed {out[name].placements} in the source and "  # type: ignore[attr-defined]
                    f"{wanted[name].placements} in the model; redistribute() it first"
                )
            local = theirs.locals[row_of[name]].clone()
        elif source is not None and pieces is not None and name in pieces:
            local = torch.empty(place.sizes, dtype=out[name].dtype, device="cpu")
            source.read(pieces[name], place.offsets, place.sizes, local)
        else:
            # Of its own memory: the rest of the file's tensor may go.
            local = place.of(values[name]).contiguous().clone()
        out[name] = as_part(local, wanted[name])
    return out
