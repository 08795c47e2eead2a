"""Whether a tensor's storage still holds it: what a verb asks before it reads or writes through PyTorch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pyparam._base.native import _C


def require_extent(what: str | Callable[[], str], tensor: Tensor) -> None:
    """Raises ValueError where the storage is smaller than the tensor, as FSDP's are between uses.

    PyTorch's own operations read and write past the end of such a storage. ``what`` begins the message.
    """
    words = _C.extent_error(tensor)
    if words is not None:
        raise ValueError(f"{what if isinstance(what, str) else what()} {words}")
