"""Results that stay on their device until somebody reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Pending(Generic[T]):
    """What ``make`` makes of some tensors once they are in host memory.

    Nothing waits before ``read``, which brings everything that lies on one device by one copy. It may be
    called on another stream than the one that computes the tensors.

    Of tensors that a CUDA graph computes there is no last value: each ``read`` is of the latest replay.
    """

    __slots__ = ("_computed", "_make", "_tensors", "lasting")

    def __init__(self, tensors: Sequence[Tensor], make: Callable[..., T]) -> None:
        self._tensors = tuple(tensors)
        self._make = make
        devices = {tensor.device for tensor in tensors if tensor.is_cuda}
        self.lasting = not (devices and torch.cuda.is_current_stream_capturing())
        self._computed = {
            device: torch.cuda.current_stream(device).record_event() if self.lasting else None
            for device in devices
        }

    def read(self) -> T:
        for device, event in self._computed.items():
            if event is not None:
                torch.cuda.current_stream(device).wait_event(event)
        return self._make(*on_host(self._tensors))


class Holder(Protocol[T]):
    _found: T | Pending[T]


def settled(holder: Holder[T]) -> T:
    """What ``_found`` holds, read if it is pending; it then stays, if it lasts."""
    found = holder._found
    if not isinstance(found, Pending):
        return found
    value = found.read()
    if found.lasting:
        holder._found = value
    return value


def made(tensors: Sequence[Tensor], make: Callable[..., T]) -> T | Pending[T]:
    """What ``make`` makes of the tensors: now, if they all are in host memory."""
    return make(*tensors) if all(tensor.is_cpu for tensor in tensors) else Pending(tensors, make)


def on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors in host memory, by one copy a device."""
    out = list(tensors)
    places: dict[torch.device, list[int]] = {}
    for i, tensor in enumerate(tensors):
        if not tensor.is_cpu:
            places.setdefault(tensor.device, []).append(i)
    for indices in places.values():
        there = [tensors[i] for i in indices]
        for i, tensor in zip(indices, unpacked(packed(there).cpu(), there), strict=True):
            out[i] = tensor
    return out


def packed(tensors: Sequence[Tensor]) -> Tensor:
    """The bytes of all, one after the other, those of wide elements first so that each is aligned."""
    return torch.cat([tensors[i].reshape(-1).view(torch.uint8) for i in _widest_first(tensors)])


def unpacked(raw: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of packed bytes as what was packed: tensors of these shapes and dtypes."""
    out = list(like)
    begin = 0
    for i in _widest_first(like):
        end = begin + like[i].numel() * like[i].element_size()
        out[i] = raw[begin:end].view(like[i].dtype).view(like[i].shape)
        begin = end
    return out


def _widest_first(tensors: Sequence[Tensor]) -> list[int]:
    return sorted(range(len(tensors)), key=lambda i: -tensors[i].element_size())
