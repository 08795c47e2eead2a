"""Whether a tensor's storage still holds it: what a verb asks before it reads or writes through PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from pyparam._base.native import _C


def require_extent(what: str | Callable[[], str], tensor: Tensor) -> None:
    """Raises ValueError where the storage is smaller than the tensor, as FSDP's are between uses.

    PyTorch's own operations read and write past the end of such a storage. ``what`` begins the message.
    """
    words = _C.extent_error(tensor)
    if words is not None:
        raise ValueError(f"{what if isinstance(what, str) else what()} {words}")


def shape_error(tensor: Tensor) -> str | None:
    """Why a tensor has no shape to ask for, as words after its name; None if it has."""
    if is_lazy(tensor):
        return "is not initialised yet and has no shape; run a forward pass first"
    if tensor.is_nested and tensor.layout == torch.strided:
        return (
            "is a nested tensor, which has no one shape; expected a plain tensor (unbind() gives its parts)"
        )
    return None


def require_shape(what: str, tensor: Tensor) -> None:
    """Raises TypeError for a tensor without a shape: a lazy module's, or a nested one."""
    words = shape_error(tensor)
    if words is not None:
        raise TypeError(f"{what} {words}")
