"""What a model was, to be so again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pyparam._share.shared_memory import write_over
from pyparam._share.ties import is_wrapper


def kept(tensor: Tensor) -> Tensor:
    """Its values in memory of their own."""
    return tensor.detach().clone()


class Before:
    """The tensors of a model and its extra states; of those that ``hold`` is told, memory and values."""

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        # Columns, and no object a module: the garbage collector has nothing to follow.
        # TorchScript's mappings are none: a script module's tensors cannot be replaced.
        self._members = [
            members
            for module in modules
            for members in (module._parameters, module._buffers)
            if isinstance(members, dict) and members
        ]
        self._sizes = [len(members) for members in self._members]
        self._names = [name for members in self._members for name in members]
        self._tensors = [tensor for members in self._members for tensor in members.values()]
        self._extra: list[tuple[nn.Module, Any]] = [
            (module, module.get_extra_state())
            for module in modules
            if type(module).get_extra_state is not nn.Module.get_extra_state
        ]
        self._lazy: list[tuple[Tensor, type[Tensor], Tensor]] = [
            (tensor, type(tensor), tensor.data)
            for tensor in self._tensors
            if tensor is not None and is_lazy(tensor)
        ]
        self._data: dict[int, tuple[Tensor, Tensor]] = {}
        self._values: dict[int, Tensor] = {}

    def tensors(self) -> Iterator[Tensor]:
        """All that the model had, also what no state dict has."""
        return (tensor for tensor in self._tensors if tensor is not None)

    def hold(self, tensors: Iterable[Tensor], *, values: bool) -> None:
        """Whoever writes to tensors of the model says so first; without ``values``, whoever moves them."""
        for tensor in tensors:
            if is_lazy(tensor) or tensor.is_meta:
                continue
            self._data.setdefault(id(tensor), (tensor, tensor.data))
            if values and id(tensor) not in self._values:
                self._values[id(tensor)] = kept(tensor)

    def restore(self) -> None:
        entries = zip(self._names, self._tensors, strict=True)
        for members, size in zip(self._members, self._sizes, strict=True):
            members.clear()
            members.update(itertools.islice(entries, size))  # type: ignore[arg-type]
        for tensor, kind, data in self._lazy:
            tensor.__class__ = kind
            tensor.data = data
        with torch.no_grad():
            for key, (tensor, data) in self._data.items():
                if _moved(tensor, data):
                    tensor.data = data
                if key in self._values:
                    write_over(tensor.detach(), self._values[key])
        for module, state in self._extra:
            module.set_extra_state(state)


def _moved(tensor: Tensor, data: Tensor) -> bool:
    """Whether a tensor is no longer laid out over ``data``."""
    if is_wrapper(tensor) or tensor.layout != torch.strided or data.layout != torch.strided:
        return False
    return (tensor.shape, tensor.stride(), tensor.data_ptr()) != (data.shape, data.stride(), data.data_ptr())
