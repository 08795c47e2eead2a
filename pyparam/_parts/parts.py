"""A table as the parts of it that lie on this rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from pyparam._base.native import _C
from pyparam._parts.place import Place, dtensor_type, place_of, whole_place
from pyparam._sources.table import ParamTable


class Share(NamedTuple):
    """Rows that the ranks of a process group hold between them: parts of them, or the same part."""

    group: Any
    rows: Tensor
    """int64, ascending."""


class Parts:
    """The local tensors of a table's entries, and where each lies in its whole.

    ``locals`` has the entries of ``table`` as this rank holds them: of a DTensor its local tensor, of any
    other tensor the tensor. ``splits`` are the groups whose sums make wholes of them, in an order that is the
    same on all ranks, ``repeats`` those whose ranks hold the same.
    """

    def __init__(self, table: ParamTable, locals: ParamTable, places: Sequence[Place]) -> None:
        self.table = table
        self.locals = locals
        self.places = places
        self.splits = _shares(places, lambda place: place.splits)
        self.repeats = _shares(places, lambda place: place.repeats)

    def __len__(self) -> int:
        return len(self.places)

    def text(self, share: Share) -> str:
        """What all ranks of the group must say alike: names, shapes, dtypes and placements of its rows."""
        names = self.table.names
        return "\n".join(f"{names[i]} {self.places[i].text}" for i in share.rows.tolist())

    def cuts(self) -> tuple[list[Any], list[int]]:
        """Each different cut, and which of them each row has."""
        found: dict[int, int] = {}
        cuts: list[Any] = []
        of: list[int] = []
        for place in self.places:
            at = found.get(id(place))
            if at is None:
                at = found[id(place)] = len(cuts)
                cuts.append(place.cut)
            of.append(at)
        return cuts, of


def _shares(places: Sequence[Place], groups_of: Callable[[Place], tuple[Any, ...]]) -> list[Share]:
    rows: dict[Any, list[int]] = {}
    by_place: dict[int, tuple[Any, ...]] = {}
    for i, place in enumerate(places):
        groups = by_place.get(id(place))
        if groups is None:
            groups = by_place[id(place)] = groups_of(place)
        for group in groups:
            rows.setdefault(group, []).append(i)
    return [
        Share(group, torch.tensor(found, dtype=torch.int64, device="cpu")) for group, found in rows.items()
    ]


def has_parts(table: ParamTable) -> bool:
    """Whether some entry is a DTensor."""
    kind = dtensor_type()
    if kind is None:
        return False
    tensor = table._native.tensor
    return any(isinstance(tensor(i), kind) for i in _C.python_tensors(table._native))


def parts_of(verb: str, table: ParamTable) -> Parts:
    """The parts of a table on this rank.

    Raises TypeError or ValueError that names the verb and the parameter for a DTensor without a block here.
    """
    kind = dtensor_type()
    tensors = table.tensors
    names = table.names
    locals: list[Tensor] = list(tensors)
    places: list[Place | None] = [None] * len(tensors)
    known: dict[Any, Place] = {}
    wholes: dict[Any, Place] = {}
    if kind is not None:
        with torch.no_grad():
            for i in _C.python_tensors(table._native):
                tensor: Any = tensors[i]
                if not isinstance(tensor, kind):
                    continue
                key = (id(tensor.device_mesh), tensor.placements, tensor.shape, tensor.dtype)
                place = known.get(key)
                if place is None:
                    place = known[key] = place_of(tensor, f"{verb}: parameter {names[i]!r}")
                places[i] = place
                locals[i] = local = local_of(tensor)
                if local.shape != place.sizes and (local.numel() > 0 or 0 not in place.sizes):
                    raise ValueError(
                        f"{verb}: parameter {names[i]!r} is a DTensor whose part here has the shape "
                        f"{list(local.shape)}; by its placements {tensor.placements} it would have "
                        f"{list(place.sizes)}"
                    )
    for i, tensor in enumerate(tensors):
        if places[i] is None:
            place = wholes.get(tensor.shape)
            if place is None:
                place = wholes[tensor.shape] = whole_place(tensor)
            places[i] = place
    return Parts(table, ParamTable(names, locals), places)  # type: ignore[arg-type]


def local_of(tensor: Any) -> Tensor:
    """The local tensor of a DTensor, once it is there. Under no_grad."""
    # What to_local() gives, without a view of it for each Parameter.
    local = getattr(tensor, "_local_tensor", None)
    if local is None:
        local = tensor.to_local()
    wait = getattr(local, "wait", None)
    out: Tensor = local if wait is None else wait()
    return out


def as_part(local: Tensor, like: Any) -> Tensor:
    """A local tensor as the part of a DTensor that ``like``'s is; as it is where that is no DTensor."""
    kind = dtensor_type()
    if kind is None or not isinstance(like, kind):
        return local
    out: Tensor = kind.from_local(
        local,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
    return out


def local_table(verb: str, table: ParamTable) -> ParamTable:
    """The table with this rank's parts in place of DTensors."""
    return parts_of(verb, table).locals if has_parts(table) else table


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _is_flat(name: str) -> bool:
    return "_fsdp_wrapped_module." in name or name.endswith("_flat_param")


def is_flat(table: ParamTable) -> bool:
    """Whether FullyShardedDataParallel flattened some entries, as their names tell."""
    return is_distributed() and any(map(_is_flat, table.names))


def refuse_flat(verb: str, table: ParamTable) -> None:
    """Refuses, by name, the pieces of flattened parameters that FullyShardedDataParallel leaves in a model.

    They are plain tensors, and nothing in them tells that other ranks hold the rest. Names tell: those of
    whole parameters, as within ``summon_full_params``, are without the wrapper's.
    """
    if not is_distributed():
        return
    for name in table.names:
        if _is_flat(name):
            raise TypeError(
                f"{verb}: parameter {name!r} is FullyShardedDataParallel's, of which each rank holds an "
                "unmarked part: shard with fully_shard, or work within "
                "FullyShardedDataParallel.summon_full_params"
            )
