"""``compare`` where parameters of a side lie on several ranks: each rank compares its part of both sides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyparam._base.native import _C
from pyparam._parts.exchange import added, minimum, ordered, unordered
from pyparam._parts.meeting import Meeting
from pyparam._parts.parts import Parts, local_of
from pyparam._parts.place import Place, dtensor_type, place_of, whole_place
from pyparam._sources.distributed import DistributedCheckpoint
from pyparam._sources.table import ParamTable

_COUNTS = 4  # finite, differing, nonfinite, first (csrc/kernels/cpu/part_compare.h)
_FIRST = 3
_SUMS = 5


class Side:
    """One of two sources: what its entries are, and any block of one."""

    def __init__(self, table: ParamTable, source: DistributedCheckpoint | None = None) -> None:
        self.table = table
        self._lazy = source
        self._stored: list[str] = [] if source is None else list(source)
        self.tensors: list[Any] = table.tensors

    @classmethod
    def lazy(cls, source: DistributedCheckpoint, names: list[str]) -> Side:
        """A checkpoint in pieces, under other names, of which nothing is read but what is asked for."""
        infos = [source.tensor_info(name) for name in source]
        shapes = [torch.empty(info.shape, dtype=info.dtype, device="meta") for info in infos]
        return cls(ParamTable(names, shapes), source)

    def is_sharded(self, i: int) -> bool:
        kind = dtensor_type()
        return kind is not None and isinstance(self.tensors[i], kind)

    def place(self, i: int, label: str) -> Place | None:
        if not self.is_sharded(i):
            return None
        return place_of(self.tensors[i], f"compare: parameter {self.table.names[i]!r} of {label}")

    def block(self, i: int, place: Place, like: Any) -> Tensor:
        """This rank's block of an entry; a DTensor that is placed otherwise as it is."""
        tensor = self.tensors[i]
        if self._lazy is not None:
            out = torch.empty(place.sizes, dtype=tensor.dtype, device="cpu")
            self._lazy.read(self._stored[i], place.offsets, place.sizes, out)
            return out
        if self.is_sharded(i):
            return local_of(tensor) if _alike(tensor, like) else tensor
        return _narrowed(tensor.detach(), place)


def _moved(tensor: Any, place: Place, like: Any) -> Tensor:
    """The block of a DTensor that is placed otherwise; its ranks communicate."""
    kind = dtensor_type()
    if kind is None or not isinstance(tensor, kind):
        return tensor  # type: ignore[no-any-return]
    if tensor.device_mesh == like.device_mesh:
        return local_of(tensor.redistribute(like.device_mesh, like.placements))
    return _narrowed(tensor.full_tensor(), place).clone()


def _narrowed(tensor: Tensor, place: Place) -> Tensor:
    for dim, (offset, size) in enumerate(zip(place.offsets, place.sizes, strict=True)):
        tensor = tensor.narrow(dim, offset if size else 0, size)
    return tensor


def compare_whole(a: Side, b: Side) -> dict[str, Any]:
    """What the native ``compare`` gives of two tables."""
    names_a, names_b = a.table.names, b.table.names
    at = _positions(names_b, "b")
    _positions(names_a, "a")
    found: dict[str, Any] = {key: [] for key in ("in_a", "in_b", "retyped", "reshaped_a", "reshaped_b")}
    found["missing"] = [i for i, name in enumerate(names_a) if name not in at]
    known = set(names_a)
    found["unexpected"] = [j for j, name in enumerate(names_b) if name not in known]
    for i, name in enumerate(names_a):
        j = at.get(name)
        if j is None:
            continue
        x, y = a.tensors[i], b.tensors[j]
        if x.shape != y.shape:
            found["reshaped_a"].append(i)
            found["reshaped_b"].append(j)
            continue
        if x.dtype != y.dtype:
            found["retyped"].append(len(found["in_a"]))
        found["in_a"].append(i)
        found["in_b"].append(j)
    rows = list(zip(found["in_a"], found["in_b"], strict=True))
    places, likes = _places(a, b, rows)
    names = [names_a[i] for i, _ in rows]
    table = ParamTable(names, [torch.empty(0, dtype=torch.float32, device="cpu")] * len(rows))
    parts = Parts(table, table, places)
    work = list(zip(rows, places, likes, strict=True))
    with Meeting("compare", parts), torch.no_grad():
        blocks = [(a.block(i, place, like), b.block(j, place, like)) for (i, j), place, like in work]
    # All ranks are here, and nothing that a rank does alone is left.
    with torch.no_grad():
        pairs = [
            (_moved(x, place, like), _moved(y, place, like))
            for (x, y), (_, place, like) in zip(blocks, work, strict=True)
        ]
    with Meeting("compare", parts):
        one = ParamTable(names, [x if x.is_cpu else x.detach().cpu() for x, _ in pairs])
        other = ParamTable(names, [y if y.is_cpu else y.detach().cpu() for _, y in pairs])
        sums, counts, largest = _C.compare_parts(one._native, other._native)
        for row in (counts[:, _FIRST] != 2**63 - 1).nonzero().flatten().tolist():
            counts[row, _FIRST] = places[row].flat(int(counts[row, _FIRST]))
    values, all_counts = _united(parts, sums, counts, largest)
    found["values"], found["counts"] = values, all_counts
    shapes = [place.whole for place in places]
    found["sizes"] = torch.tensor([n for shape in shapes for n in shape], dtype=torch.int64, device="cpu")
    found["ends"] = torch.tensor([len(shape) for shape in shapes], dtype=torch.int64, device="cpu").cumsum(0)
    return found


def _places(a: Side, b: Side, rows: list[tuple[int, int]]) -> tuple[list[Place], list[Any]]:
    """Where this rank's block of each pair lies, and the DTensor that says so."""
    known: dict[Any, Place] = {}
    places: list[Place] = []
    likes: list[Any] = []
    for i, j in rows:
        side, row, label = (a, i, "a") if a.is_sharded(i) else (b, j, "b")
        if b.is_sharded(j):
            b.place(j, "b") if side is a and not _alike(a.tensors[i], b.tensors[j]) else None
        like = side.tensors[row] if side.is_sharded(row) else None
        key: Any = tuple(a.tensors[i].shape)
        if like is not None:
            key = (id(like.device_mesh), like.placements, like.shape, like.dtype)
        place = known.get(key)
        if place is None:
            place = side.place(row, label) or whole_place(a.tensors[i])
            known[key] = place
        places.append(place)
        likes.append(like)
    return places, likes


def _alike(x: Any, y: Any) -> bool:
    return bool(x.device_mesh == y.device_mesh and x.placements == y.placements)


def _united(parts: Parts, sums: Any, counts: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    columns = [counts[:, _FIRST:], ordered(-largest).unsqueeze(1), sums.windows()]
    least = torch.split(minimum(parts.splits, torch.cat(columns, 1)), [1, 1, 2 * _SUMS], 1)
    windows = least[2].contiguous()
    limbs, per_row = sums.packed(windows)
    limbs, totals = added(parts.splits, [(limbs, per_row), (counts[:, :_FIRST].flatten(), _FIRST)])
    counts = torch.cat((totals.view(-1, _FIRST), least[0]), 1)
    numel = torch.tensor([_numel(place) for place in parts.places], dtype=torch.int64, device="cpu")
    return _C.differences_of(
        _C.ExactTable.unpacked(windows, limbs),
        counts.contiguous(),
        -unordered(least[1].flatten()),
        numel,
    )


def _numel(place: Place) -> int:
    out = 1
    for size in place.whole:
        out *= size
    return out


def _positions(names: list[str], label: str) -> dict[str, int]:
    at: dict[str, int] = {}
    for i, name in enumerate(names):
        if name in at:
            raise ValueError(f"compare: {label} has two parameters named {name!r}; names must be unique")
        at[name] = i
    return at
