"""Where the local shard of a DTensor lies in its whole."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyparam.init._fill import Part, dtensor_type, part_of


def local_part(tensor: Any, what: str) -> tuple[Tensor, Part] | None:
    """The shard this rank holds and its place, or None for what is no DTensor.

    Raises TypeError for a placement whose shard is no block of the whole (Partial, strided shards).
    """
    kind = dtensor_type()
    if kind is None or not isinstance(tensor, kind):
        return None
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    for placement in tensor.placements:
        if not isinstance(placement, (Replicate, Shard)) or type(placement).__name__ == "_StridedShard":
            raise TypeError(f"{what}: a DTensor placed {placement} has no block of the whole to fill")
    local = tensor.to_local()
    shape, offset = compute_local_shape_and_global_offset(
        tuple(tensor.shape), tensor.device_mesh, tensor.placements
    )
    if local.numel() == 0:
        return local, Part(tuple(tensor.shape), 0, ())
    assert tuple(shape) == tuple(local.shape), (shape, local.shape)
    return local, part_of(local, what, tuple(offset), tuple(tensor.shape))
