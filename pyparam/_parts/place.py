"""Where this rank's part of a DTensor lies in the whole, and which ranks hold the rest of it or the same."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# Whole shape, this rank's offsets and sizes, the innermost dimension that is cut (-1: none that matters), and
# where pieces begin along it.
Cut = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int, tuple[int, ...]]


@dataclass(frozen=True)
class Place:
    """A block of a whole: ``whole[offsets : offsets + sizes]`` in every dimension."""

    whole: tuple[int, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    splits: tuple[Any, ...]
    """The process groups whose ranks hold the other parts, one a mesh dimension that splits it."""
    repeats: tuple[Any, ...]
    """Those whose ranks hold the same part."""
    ranks: tuple[int, ...]
    """All ranks of the mesh."""
    layout: str
    """How the whole is cut and where the parts lie: of two DTensors with the same, so are their parts."""
    text: str
    """What all of these ranks must agree on."""
    cut: Cut

    def flat(self, local: int) -> int:
        """The index in the whole, flattened, of an element of the flattened part."""
        out, step = 0, 1
        for whole, offset, size in zip(
            reversed(self.whole), reversed(self.offsets), reversed(self.sizes), strict=True
        ):
            local, here = divmod(local, size)
            out += (offset + here) * step
            step *= whole
        return out

    def of(self, whole: Tensor) -> Tensor:
        """This block of a whole tensor, as a view."""
        for dim, (offset, size) in enumerate(zip(self.offsets, self.sizes, strict=True)):
            whole = whole.narrow(dim, offset if size else 0, size)
        return whole


def dtensor_type() -> Any:
    """DTensor, if anything in the process has loaded it."""
    return getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)


def told_by_dim() -> dict[type, bool]:
    """PyTorch's own placements, of which ``dim`` (True) or the class alone (False) tells two apart."""
    module = sys.modules.get("torch.distributed.tensor")
    return {} if module is None else {module.Shard: True, module.Replicate: False}


def whole_place(tensor: Tensor) -> Place:
    """That of a tensor which is no part: all of itself."""
    try:
        shape = tuple(tensor.shape)
    except RuntimeError:  # nested: whoever reads it says so by its name
        shape = ()
    origin = (0,) * len(shape)
    return Place(shape, origin, shape, (), (), (), "", "", (shape, origin, shape, -1, ()))


def place_of(tensor: Any, what: str) -> Place:
    """The place of a DTensor's local tensor, by DTensor's own checkpoint protocol.

    Raises TypeError for a placement whose part is no block of the whole, ValueError on a rank outside of its
    mesh; both name ``what``.
    """
    mesh, placements, whole = tensor.device_mesh, tensor.placements, tuple(tensor.shape)
    if mesh.get_coordinate() is None:
        raise ValueError(f"{what} is a DTensor on ranks that this one is none of: {mesh}")
    partial = [p for p in placements if p.is_partial()]
    if partial:
        raise TypeError(
            f"{what} is a DTensor placed {partial[0]}: each rank holds a term of its values, and none the "
            "values; redistribute() it first"
        )
    chunks = tensor.__create_chunk_list__()
    if len(chunks) != 1:
        raise TypeError(
            f"{what} is a DTensor placed {placements}, of which this rank holds {len(chunks)} blocks; "
            "expected one: redistribute() it first"
        )
    offsets, sizes = tuple(chunks[0].offsets), tuple(chunks[0].sizes)
    sharded = [i for i, p in enumerate(placements) if not p.is_replicate() and mesh.size(i) > 1]
    for i in sharded:
        if not hasattr(placements[i], "dim"):
            raise TypeError(
                f"{what} is a DTensor placed {placements[i]}, which is unknown: redistribute() it"
            )
    if any(type(placements[i]).__name__ == "_StridedShard" for i in sharded):
        blocks = list(_all_blocks(mesh, placements, whole, sharded))
        if not _tile(blocks, whole):
            raise TypeError(
                f"{what} is a DTensor placed {placements}, of which a rank holds no one block; "
                "redistribute() it first"
            )
    dim, borders = _innermost_cut(mesh, placements, whole, sharded, tensor.dtype.itemsize)
    repeated = [i for i, p in enumerate(placements) if p.is_replicate() and mesh.size(i) > 1]
    ranks = tuple(mesh.mesh.flatten().tolist())
    layout = f"{whole} {placements} {tuple(mesh.shape)} {ranks}"
    return Place(
        whole,
        offsets,
        sizes,
        tuple(mesh.get_group(i) for i in sharded),
        tuple(mesh.get_group(i) for i in repeated),
        ranks,
        layout,
        f"{tensor.dtype} {layout}",
        (whole, offsets, sizes, dim, borders),
    )


Block = tuple[tuple[int, ...], tuple[int, ...]]  # offsets and sizes


def _all_blocks(
    mesh: Any, placements: Sequence[Any], whole: tuple[int, ...], sharded: Sequence[int]
) -> Iterator[Block]:
    """Offsets and sizes of the parts on all ranks, replicas left out, by DTensor's own rule."""
    from torch.distributed.tensor._utils import _compute_local_shape_and_global_offset

    ranges = [range(mesh.size(i)) if i in sharded else (0,) for i in range(mesh.ndim)]
    for coordinate in itertools.product(*ranges):
        sizes, offsets = _compute_local_shape_and_global_offset(
            whole, tuple(mesh.shape), list(coordinate), placements
        )
        yield tuple(offsets), tuple(sizes)


def _tile(blocks: Sequence[Block], whole: tuple[int, ...]) -> bool:
    """Whether blocks that are what their ranks claim to hold cover the whole, each element once.

    A rank that holds something else than a block claims the elements after its first one, which are
    another's.
    """
    filled = [(offsets, sizes) for offsets, sizes in blocks if math.prod(sizes) > 0]
    if sum(math.prod(sizes) for _, sizes in filled) != math.prod(whole):
        return False
    for dim in range(len(whole)):
        rest: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
        for offsets, sizes in filled:
            others = tuple(
                (offset, size)
                for d, (offset, size) in enumerate(zip(offsets, sizes, strict=True))
                if d != dim
            )
            rest.setdefault(others, []).append((offsets[dim], offsets[dim] + sizes[dim]))
        for spans in rest.values():
            spans.sort()
            if any(a[1] > b[0] for a, b in itertools.pairwise(spans)):
                return False
    return True


def _innermost_cut(
    mesh: Any, placements: Sequence[Any], whole: tuple[int, ...], sharded: Sequence[int], itemsize: int
) -> tuple[int, tuple[int, ...]]:
    """The innermost dimension that is really cut and where pieces begin along it.

    Only where a word of eight bytes may lie in two pieces; elsewhere -1.
    """
    dims = sorted({placements[i].dim % max(len(whole), 1) for i in sharded}, reverse=True)
    if not dims or math.prod(whole) == 0 or itemsize % 8 == 0:
        return -1, ()
    if math.prod(whole[dims[0] + 1 :]) * itemsize % 8 == 0:
        return -1, ()
    blocks = [block for block in _all_blocks(mesh, placements, whole, sharded) if math.prod(block[1]) > 0]
    for dim in dims:
        borders = sorted({offsets[dim] for offsets, _ in blocks})
        if len(borders) > 1:
            return dim, tuple(borders)
    return -1, ()
