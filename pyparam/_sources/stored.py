"""Tensors as torch's pickles describe them: a storage by its key, and a layout over it. No tensor is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from pyparam._base.words import a_kind
from pyparam._sources.plain_world import PlainWorld
from pyparam._sources.unpickle import PickleError, Reference

MOST_DIMENSIONS = 64


class StorageKey(NamedTuple):
    """A storage that lies outside the pickle. ``elements`` are of ``dtype``, or bytes where that is None."""

    key: str
    dtype: torch.dtype | None
    elements: int

    @property
    def nbytes(self) -> int:
        return self.elements * (1 if self.dtype is None else self.dtype.itemsize)


class StoredTensor:
    """A strided tensor over a storage: what ``torch._utils._rebuild_tensor_v2`` is told.

    ``offset`` and ``stride`` count elements of ``dtype``. One object is one tensor of the program that saved
    it.
    """

    __slots__ = ("dtype", "offset", "parameter", "requires_grad", "shape", "storage", "stride")

    def __init__(
        self,
        storage: StorageKey,
        dtype: torch.dtype,
        offset: int,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
        requires_grad: bool = False,
    ) -> None:
        """Raises PickleError for a layout that the storage does not hold."""
        check_layout(dtype, offset, shape, stride, storage.nbytes)
        self.storage = storage
        self.dtype = dtype
        self.offset = offset
        self.shape = shape
        self.stride = stride
        self.requires_grad = requires_grad
        self.parameter = False


def check_layout(
    dtype: torch.dtype, offset: Any, shape: tuple[Any, ...], stride: tuple[Any, ...], nbytes: int
) -> None:
    """Raises PickleError where elements so laid out do not lie inside ``nbytes`` bytes."""
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
        raise PickleError(
            f"a tensor of shape {_short(shape)}, strides {_short(stride)} and offset {offset!r}"
        )
    if len(shape) > MOST_DIMENSIONS:
        raise PickleError(f"a tensor of {len(shape)} dimensions")
    if math.prod(shape) * dtype.itemsize >= 1 << 63:
        raise PickleError(f"a tensor of shape {_short(shape)}")
    if 0 in shape:
        return
    last = offset + sum((extent - 1) * step for extent, step in zip(shape, stride, strict=True))
    if (last + 1) * dtype.itemsize > nbytes:
        raise PickleError(
            f"a tensor of shape {_short(shape)}, strides {_short(stride)} and offset {offset} reaches beyond "
            f"its storage of {nbytes} bytes"
        )


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a dense tensor in row-major order, in elements."""
    steps = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        steps[i] = steps[i + 1] * max(shape[i + 1], 1)
    return tuple(steps)


def _short(numbers: tuple[Any, ...]) -> str:
    return str(list(numbers[:8]))[:-1] + (", ...]" if len(numbers) > 8 else "]")


class TensorWorld(PlainWorld):
    """The names that torch writes for plain tensors: rebuilding them gives a ``StoredTensor``."""

    def find(self, module: str, name: str) -> Any:
        known = _TORCH.get((module, name))
        if known is not None:
            return known
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            dtype = _storage_dtypes().get(name)
            if dtype is not None:
                return dtype
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return super().find(module, name)

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if isinstance(function, Reference):
            rebuild = _REBUILDS.get(function.name)
            if rebuild is not None and function.module != "collections":
                try:
                    return rebuild(*arguments)
                except (TypeError, AttributeError) as error:
                    raise PickleError(f"{function.name} is called in an unknown way: {error}") from None
        return super().call(function, arguments)

    def build(self, made: Any, state: Any) -> None:
        if isinstance(made, StoredTensor):
            return  # attributes somebody gave a parameter
        super().build(made, state)

    def persistent(self, reference: Any) -> Any:
        """('storage', kind, key, device, elements), as ``torch.save`` writes it."""
        if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
            raise PickleError("it refers to something that is no storage")
        _, kind, key, _, elements = reference[:5]
        if type(elements) is not int or elements < 0 or not isinstance(key, (str, int)):
            raise PickleError("it refers to a damaged storage")
        if not (isinstance(kind, torch.dtype) or kind is _UNTYPED):
            raise PickleError(f"it refers to a storage of {kind}")
        return StorageKey(str(key), kind if isinstance(kind, torch.dtype) else None, elements)


_UNTYPED = Reference("torch.storage", "UntypedStorage")


def _storage_dtypes() -> dict[str, Any]:
    global _storages
    if _storages is None:
        known = torch.storage._dtype_to_storage_type_map()
        _storages = {name: dtype for dtype, name in known.items()}
        _storages["UntypedStorage"] = _UNTYPED
    return _storages


_storages: dict[str, Any] | None = None


def _tensor_v2(
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    bits: Any = None,
) -> StoredTensor:
    _check_bits(bits)
    if not isinstance(storage, StorageKey) or storage.dtype is None:
        raise PickleError("a tensor without a typed storage")
    return StoredTensor(storage, storage.dtype, offset, _ints(shape), _ints(stride), bool(requires_grad))


def _tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    bits: Any = None,
) -> StoredTensor:
    _check_bits(bits)
    if not isinstance(storage, StorageKey) or not isinstance(dtype, torch.dtype):
        raise PickleError("a tensor without a storage or dtype")
    return StoredTensor(storage, dtype, offset, _ints(shape), _ints(stride), bool(requires_grad))


class NotPlain(PickleError):
    """A tensor that is more than elements over a storage: conjugated, with attributes, of a class of its
    own."""


def _check_bits(bits: Any) -> None:
    if bits:
        raise NotPlain("a tensor that is a conjugate or a negative")


def _parameter(data: Any, requires_grad: Any = True, *more: Any) -> Any:
    if isinstance(data, StoredTensor):
        made = StoredTensor(
            data.storage, data.dtype, data.offset, data.shape, data.stride, bool(requires_grad)
        )
        made.parameter = True
        return made
    return data


def _ints(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)):
        raise PickleError(f"{a_kind(values)} where sizes belong")
    return tuple(values)


def _from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor with attributes, or of a class of its own: its plain tensor."""
    if not isinstance(function, Reference) or not isinstance(arguments, tuple):
        raise PickleError("a tensor rebuilt in an unknown way")
    rebuild = _REBUILDS.get(function.name)
    if rebuild is None or rebuild is _from_type or not function.name.startswith("_rebuild"):
        raise PickleError(f"a tensor rebuilt by {function}")
    return rebuild(*arguments)


def _size(extents: Any = ()) -> torch.Size:
    return torch.Size(_ints(extents))


def _device(name: Any, index: Any = None) -> torch.device:
    try:
        return torch.device(name) if index is None else torch.device(name, index)
    except RuntimeError:
        raise PickleError(f"a device {name!r}") from None


def _layout(name: Any) -> torch.layout:
    found = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(found, torch.layout):
        raise PickleError(f"a layout {name!r}")
    return found


_REBUILDS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor_v2": _tensor_v2,
    "_rebuild_tensor": _tensor_v2,
    "_rebuild_tensor_v3": _tensor_v3,
    "_rebuild_parameter": _parameter,
    "_rebuild_parameter_with_state": _parameter,
    "Parameter": _parameter,
    "Size": _size,
    "device": _device,
    "_get_layout": _layout,
    "_rebuild_from_type_v2": _from_type,
}

_TORCH: dict[tuple[str, str], Any] = {
    (module, name): Reference(module, name)
    for module, names in (
        (
            "torch._utils",
            (
                "_rebuild_tensor",
                "_rebuild_tensor_v2",
                "_rebuild_tensor_v3",
                "_rebuild_parameter",
                "_rebuild_parameter_with_state",
            ),
        ),
        ("torch.nn.parameter", ("Parameter",)),
        ("torch", ("Size", "device", "Tensor")),
        ("torch.serialization", ("_get_layout",)),
        ("torch._tensor", ("_rebuild_from_type_v2",)),
    )
    for name in names
}
