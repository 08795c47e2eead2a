"""Where the local shard of a DTensor lies in its whole."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from pyparam._parts.parts import as_part, has_parts, local_of, parts_of
from pyparam._parts.place import Place, dtensor_type, place_of
from pyparam._sources.table import ParamTable
from pyparam.init._fill import Part, contiguous_strides


def is_part(tensor: Any) -> bool:
    kind = dtensor_type()
    return kind is not None and isinstance(tensor, kind)


def local_part(tensor: Any, what: str) -> tuple[Tensor, Part] | None:
    """The shard this rank holds and its place, or None for what is no DTensor.

    Raises TypeError for a placement whose shard is no block of the whole (Partial, some strided shards).
    """
    if not is_part(tensor):
        return None
    place = place_of(tensor, f"{what}: the tensor")
    with torch.no_grad():
        local = local_of(tensor)
    if local.numel() == 0:
        return local, Part(place.whole, 0, ())
    return local, Part(place.whole, _offset(place), contiguous_strides(place.whole))


def held(tensor: Tensor) -> Tensor:
    """What of a tensor lies on this rank: of a DTensor its part, of any other tensor all."""
    if not is_part(tensor):
        return tensor
    with torch.no_grad():
        return local_of(tensor)


def filled_parts(table: ParamTable) -> tuple[ParamTable, list[int], list[int]]:
    """The tensors to write to, and for the native fill the offset and the strides in its whole of each; both
    are empty where nothing is a part."""
    if not has_parts(table):
        return table, [], []
    parts = parts_of("initialize_", table)
    offsets = parts.of_rows([_offset(place) for place in parts.kinds]).tolist()
    of_kinds = [contiguous_strides(place.whole) for place in parts.kinds]
    strides = list(itertools.chain.from_iterable(of_kinds[kind] for kind in parts.kind_of.tolist()))
    return parts.locals, offsets, strides


def _offset(place: Place) -> int:
    """The index of the part's first element in the flattened whole; 0 for a part without elements."""
    return place.flat(0) if 0 not in place.sizes else 0


def fresh_part(old: Any, device: torch.device, what: str) -> Any:
    """A DTensor like a meta one, with memory on the device of its mesh."""
    if device.type != old.device_mesh.device_type:
        raise ValueError(
            f"{what} is a DTensor on a mesh of {old.device_mesh.device_type!r}; it cannot be materialised on "
            f"{str(device)!r}"
        )
    place_of(old, what)
    with torch.no_grad():
        local = torch.empty_like(local_of(old).detach(), device=device)
        fresh = torch.nn.Parameter(as_part(local, old), requires_grad=old.requires_grad)
    own = set(fresh.__dict__)
    fresh.__dict__.update({key: value for key, value in old.__dict__.items() if key not in own})
    return fresh
