"""Let a model's parameters live in one buffer, so that flattening is free."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyparam._base.errors import named_errors
from pyparam._base.modes import require_memory
from pyparam._base.native import _C
from pyparam._base.words import a_kind
from pyparam._sources import table_of


@dataclass(frozen=True)
class Intact:
    """The answer of :meth:`Packed.intact`: true while every parameter is at its place.

    Attributes:
        broken: the names of the parameters that are not: moved (``.to``, ``.data =``), replaced by an
            assignment, removed, or added since. With packed gradients also those whose ``.grad`` was
            replaced.
    """

    broken: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.broken


class Packed:
    """A packed model: its buffers, and what happened to them. Made by :func:`pack_`.

    Attributes:
        flat: ``{(device, dtype): vector}``: each vector is the buffer itself, of shape ``[numel]``. Writing
            to it writes the parameters.
        flat_grad: the same for the gradients, element for element beside ``flat``; empty without
            ``grads=True``.
    """

    def __init__(self, model: nn.Module, *, grads: bool = False) -> None:
        self._model = model
        table = table_of(model)
        self._unpacked = False
        # Python's own references: a tensor that native code holds could not be swapped.
        self._names, self._parameters, self._buffers = table.names, table.tensors, list(model.buffers())
        with named_errors(table):
            self._state = _C.pack_(table._native, self._buffers, grads)
        self.flat = self._flats(grad=False)
        self.flat_grad = self._flats(grad=True)

    def _flats(self, *, grad: bool) -> dict[tuple[torch.device, torch.dtype], Tensor]:
        return {(device, dtype): vector for device, dtype, vector in _C.packed_flats(self._state, grad)}

    def intact(self) -> Intact:
        """Whether all parameters of the model are still at their place in the buffers, and which are not."""
        if self._unpacked:
            return Intact(tuple(self._names))
        now = table_of(self._model)
        return Intact(tuple(_C.packed_broken(self._state, self._packed(), now._native)))

    def _packed(self) -> _C.ParamTable:
        return _C.ParamTable(self._names, self._parameters)

    def unpack_(self) -> None:
        """Gives each parameter that is still packed a storage of its own again, with its former strides.

        Parameters that share memory keep sharing it. The vectors of ``flat`` no longer belong to the model;
        ``flat`` and ``flat_grad`` are empty afterwards. Unpacking twice does nothing.
        """
        if not self._unpacked:
            _C.unpack_(self._state, self._packed(), self._buffers)
        self._unpacked = True
        self._parameters, self._buffers = [], []
        self.flat = {}
        self.flat_grad = {}

    def __repr__(self) -> str:
        if self._unpacked:
            return "Packed(unpacked)"
        groups = ", ".join(
            f"{dtype} on {device}: {vector.numel():,}" for (device, dtype), vector in self.flat.items()
        )
        return f"Packed({groups})"


def pack_(model: nn.Module, *, grads: bool = False) -> Packed:
    """Moves a model's parameters into one buffer for each device and dtype, in place.

    Every Parameter stays the same object, so optimizers, hooks and tied modules keep working. The buffer
    starts aligned to 64 bytes and has no gaps: ``packed.flat[(device, dtype)]`` equals :func:`flatten` of
    that group, without copying. Two Parameters that share memory keep sharing it and stand in the buffer
    once; a module buffer that shares memory with a parameter moves along. A parameter with other strides
    (channels-last) becomes contiguous.

    Each parameter has a storage that covers its own bytes alone, so saving one does not write its neighbours,
    and ``copy.deepcopy``, ``state_dict`` and ``load_state_dict`` do what they do for any model. The price:
    autograd's version check does not see a write through ``flat``.

    Args:
        model: whose parameters move; its modules and Parameters stay as they are.
        grads: pack the gradients too, in buffers laid out like ``flat``. A parameter that requires grad and
            has none gets zeros. ``zero_grad(set_to_none=False)`` keeps them packed.

    Returns:
        A :class:`Packed`, which keeps the model alive.

    Raises:
        TypeError: not a module; a parameter that is sparse, quantized, nested, uninitialized, on meta or a
            wrapper; two parameters of different dtypes over one memory.
        ValueError: a parameter whose memory was freed; with ``grads=True``, two Parameters that share memory.
            The model is unchanged when an error is raised.
    """
    require_memory("pack_")
    if not isinstance(model, nn.Module):
        raise TypeError(f"pack_: the model is {a_kind(model)}; expected a torch.nn.Module")
    return Packed(model, grads=grads)
