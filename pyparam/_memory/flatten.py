"""Gather a model's parameters into one vector, and put them back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from pyparam._base.errors import named_errors, spoken_by
from pyparam._base.modes import mixed_error, require_fake, require_written
from pyparam._base.native import _C
from pyparam._base.words import a_kind
from pyparam._sources import table_of


def flatten(
    source: Any,
    *,
    grad: bool = False,
    dtype: torch.dtype | None = None,
    out: Tensor | None = None,
    missing: Literal["error", "zeros"] = "error",
) -> Tensor:
    """Copies all parameters of a source into one contiguous vector, in table order.

    Args:
        source: anything with parameters. Every entry of its table counts once, in any shape and any strides.
        grad: gather the gradients instead of the parameters.
        dtype: the vector's dtype; elements convert while they are copied, as ``Tensor.to`` converts. Without
            it all parameters must have one dtype, and that is the vector's.
        out: the vector to fill, contiguous, of shape ``[numel]``, of the right dtype and device. It may share
            memory with a parameter only where that parameter already lies at its place in it.
        missing: with ``grad=True``, whether a parameter without a gradient is an error or counts as zeros.

    Returns:
        A vector of shape ``[numel]``, or ``out``. It is a copy that autograd does not follow:
        :func:`parameters_to_vector` and ``torch.ops.pyparam.flatten`` are differentiable. A source without
        parameters gives an empty vector of the default dtype.

    Raises:
        TypeError: parameters on several devices, or of several dtypes without ``dtype=`` (the first two that
            differ are named), a sparse, quantized, nested, uninitialized or wrapper tensor, an ``out`` of
            another dtype or device.
        ValueError: an ``out`` of another shape or that overlaps a parameter, a missing gradient, a parameter
            whose memory was freed.
    """
    if missing not in ("error", "zeros"):
        raise ValueError(f"flatten: missing is {missing!r}; expected 'error' or 'zeros'")
    if out is not None and not isinstance(out, Tensor):
        raise TypeError(f"flatten: out is {a_kind(out)}; expected a torch.Tensor")
    table = table_of(source)
    require_fake("flatten", table)
    with named_errors(table):
        return _C.flatten(table._native, grad, missing == "zeros", dtype, out)


def flatten_groups(source: Any) -> dict[tuple[torch.device, torch.dtype], Tensor]:
    """Like :func:`flatten` for a source of several devices or dtypes: one vector for each pair of them.

    Args:
        source: anything with parameters, of any devices and dtypes.

    Returns:
        ``{(device, dtype): vector}``, in the order in which the pairs first come in the table; each vector,
        of shape ``[numel]``, holds its parameters in table order.

    Raises:
        TypeError: a sparse, quantized, nested, uninitialized or wrapper tensor.
        ValueError: a parameter whose memory was freed.
    """
    table = table_of(source)
    require_fake("flatten_groups", table)
    with named_errors(table):
        return {(device, dtype): vector for device, dtype, vector in _C.flatten_groups(table._native)}


def unflatten(vector: Tensor, source: Any) -> list[Tensor]:
    """Cuts a vector into views with the shapes of a source's parameters, in table order.

    Args:
        vector: of shape ``[numel]``, of any dtype, on any device.
        source: gives the shapes; its values are not read.

    Returns:
        One view of ``vector`` a parameter. Autograd follows them.

    Raises:
        TypeError: not a tensor.
        ValueError: a vector of more than one dimension, too long or too short.
    """
    _require_tensor("unflatten", vector)
    table = table_of(source)
    with named_errors(table):
        return _C.unflatten(table._native, vector)


def scatter_(source: Any, vector: Tensor) -> None:
    """Copies a vector into a source's parameters, in place: the inverse of :func:`flatten`.

    Each parameter stays the same object with the same memory, strides and ``requires_grad``. Like an
    optimizer's step, the write is not recorded by autograd, and it raises the parameters' versions, so that a
    backward through values that are gone is an error. Where two parameters share memory, the later in the
    table wins; where a parameter shares memory with the vector, the vector is read first.

    Args:
        source: whose parameters are written.
        vector: of shape ``[numel]``, with the parameters' dtype and device.

    Raises:
        TypeError: not a tensor, another dtype or device, a sparse, quantized, nested or uninitialized
            parameter.
        ValueError: a vector of more than one dimension, too long or too short, an expanded
            parameter. Nothing is written when an error is raised.
    """
    _require_tensor("scatter_", vector)
    table = table_of(source)
    require_written("scatter_", table)
    with named_errors(table):
        _C.scatter_(table._native, vector)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """A drop-in for ``torch.nn.utils.parameters_to_vector``: one vector of all parameters, differentiable.

    Beyond PyTorch's, it takes non-contiguous parameters; it refuses parameters of several dtypes, which
    PyTorch promotes to one behind the user's back.

    Args:
        parameters: an iterable of tensors, such as ``model.parameters()``.

    Returns:
        A new vector of shape ``[numel]``, of their dtype and device.

    Raises:
        TypeError: parameters of several dtypes or devices.
        ValueError: no parameters.
    """
    tensors = list(parameters)
    if not tensors:
        raise ValueError("parameters_to_vector: expected a non-empty iterable of tensors")
    require_fake("parameters_to_vector", _numbered(tensors))
    try:
        return _C.parameters_to_vector(tensors)
    except (TypeError, ValueError):
        table = table_of(tensors)  # only an error needs names
    with spoken_by("parameters_to_vector", "flatten"), named_errors(table):
        return _C.parameters_to_vector(table._native)


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """A drop-in for ``torch.nn.utils.vector_to_parameters``: copies slices of a vector into the parameters.

    As PyTorch documents it, it copies. (PyTorch's code makes the parameters views of the vector instead, so
    that a later optimizer step writes into the vector, ties between parameters are cut, and strides are
    lost.) It refuses what PyTorch gets silently wrong: a vector that is too long, and one of another dtype,
    which would change the parameters' dtype.

    Args:
        vec: of shape ``[numel]``, with the parameters' dtype and device.
        parameters: an iterable of tensors, such as ``model.parameters()``, which are written.

    Raises:
        TypeError: ``vec`` is not a tensor, or of another dtype or device than a parameter.
        ValueError: ``vec`` has more than one dimension, is too long or too short.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected torch.Tensor, but got: {torch.typename(vec)}")
    words = mixed_error(vec)
    if words is not None:
        raise TypeError(f"vector_to_parameters: the vector {words}")
    tensors = list(parameters)
    require_written("vector_to_parameters", _numbered(tensors))
    try:
        _C.scatter_(tensors, vec)
    except (TypeError, ValueError):
        # Nothing was written, and only an error needs names.
        with spoken_by("vector_to_parameters", "scatter_"):
            scatter_(tensors, vec)


def _require_tensor(verb: str, vector: Any) -> None:
    if not isinstance(vector, Tensor):
        raise TypeError(f"{verb}: the vector is {a_kind(vector)}; expected a torch.Tensor")
    words = mixed_error(vector)
    if words is not None:
        raise TypeError(f"{verb}: the vector {words}")


def _numbered(tensors: list[Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Names as a table gives them to tensors without."""
    return ((str(i), tensor) for i, tensor in enumerate(tensors))
