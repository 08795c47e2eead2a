"""Samplers: PyTorch's own names and arguments, drawn from counters instead of a generator's state.

A sampler that is one native fill has a *row*: the kind and the parameters of its distribution, from the shape
alone. ``initialize_`` fills a whole model from rows in one call; a sampler called by itself makes the same
row. What all samplers have in common stands in the docstring of the package.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.init import calculate_gain

from pyparam._base.extent import shape_error
from pyparam.init._fill import (
    Part,
    Row,
    fill_,
    ordinary,
    part_of,
    seed_of,
    stream_of,
)
from pyparam.init._parts import local_part
from pyparam.init._rows import (
    Shape,
    constant_row,
    kaiming_normal_row,
    kaiming_uniform_row,
    normal_row,
    ones_row,
    trunc_normal_row,
    uniform_row,
    xavier_normal_row,
    xavier_uniform_row,
    zeros_row,
)

__all__ = [
    "ROWS",
    "calculate_gain",
    "constant_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

Offset = int | Sequence[int]


# ---- one fill ---------------------------------------------------------------------------------------------


def located(
    tensor: Tensor, what: str, offset: Offset, shape: Shape | None, strides: Shape | None
) -> tuple[Tensor, Part]:
    """The tensor to write to and where it lies in its whole; a DTensor knows both itself."""
    if offset == 0 and shape is None and strides is None:
        sharded = local_part(tensor, what)
        if sharded is not None:
            return sharded
    target = ordinary(tensor, what)
    if target.is_inference() and not torch.is_inference_mode_enabled():
        # PyTorch's own operations say so when they have written to it.
        raise ValueError(
            f"{what}: the tensor is an inference tensor; outside inference mode it cannot be written"
        )
    return target, part_of(tensor, what, offset, shape, strides)


def _drawn(
    row: Callable[..., Row],
    what: str,
    tensor: Tensor,
    arguments: tuple[Any, ...],
    seeded: tuple[int | None, torch.Generator | None, str | int],
    place: tuple[Offset, Shape | None, Shape | None],
) -> Tensor:
    seed, generator, stream = seeded
    key, channel = seed_of(seed, generator, what=what), stream_of(stream, what)
    target, part = located(tensor, what, *place)
    fill_(target, row(part.shape, *arguments), what, seed=key, stream=channel, part=part)
    return tensor


def uniform_(
    tensor: Tensor,
    a: float = 0.0,
    b: float = 1.0,
    generator: torch.Generator | None = None,
    *,
    seed: int | None = None,
    stream: str | int = 0,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills with the uniform distribution on [a, b): multiples of 2**-24 (2**-53 in float64) of b - a.

    Every value is a number of the dtype with a <= value < b (a, where a == b).

    Args:
        tensor: of any shape, float32, float64, float16 or bfloat16; written in place.
        a, b: the bounds.
        generator, seed, stream, offset, shape, strides: those of every sampler, see :mod:`pyparam.init`.

    Returns:
        The tensor.

    Raises:
        TypeError: another dtype, a tensor that is sparse, quantized, nested, lazy or a wrapper, bounds that
            are no numbers, a seed and a generator.
        ValueError: a > b, bounds or b - a that are not finite or beyond the dtype, an interval without a
            number of the dtype, elements that share memory, a place outside its whole.
    """
    return _drawn(
        uniform_row, "uniform_", tensor, (a, b), (seed, generator, stream), (offset, shape, strides)
    )


def normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    generator: torch.Generator | None = None,
    *,
    seed: int | None = None,
    stream: str | int = 0,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills with a normal, by Box and Muller. Draws lie within 6.77 deviations (8.66 in float64).

    Args:
        tensor: of any shape, float32, float64, float16 or bfloat16; written in place.
        mean, std: of the distribution; with ``std=0`` every value is the mean.
        generator, seed, stream, offset, shape, strides: those of every sampler, see :mod:`pyparam.init`.

    Returns:
        The tensor.

    Raises:
        TypeError: as :func:`uniform_`.
        ValueError: std < 0, a mean or a std that is not finite, draws that reach beyond the dtype's largest
            number, elements that share memory, a place outside its whole.
    """
    return _drawn(
        normal_row, "normal_", tensor, (mean, std), (seed, generator, stream), (offset, shape, strides)
    )


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: torch.Generator | None = None,
    *,
    seed: int | None = None,
    stream: str | int = 0,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills with a normal cut to [a, b] (not in deviations), by inversion; infinite bounds are allowed.

    Every value is a number of the dtype with a <= value <= b. An interval narrower than 2**-12 deviations is
    drawn from by the slope of its density, since quantiles there differ by less than they are known to.
    An interval in the far tail, where PyTorch's erfinv saturates, is drawn from correctly.

    Args:
        tensor: of any shape, float32, float64, float16 or bfloat16; written in place.
        mean, std: of the normal before it is cut.
        a, b: the bounds, in the unit of the values.
        generator, seed, stream, offset, shape, strides: those of every sampler, see :mod:`pyparam.init`.

    Returns:
        The tensor.

    Raises:
        TypeError: as :func:`uniform_`.
        ValueError: std < 0, a mean or a std that is not finite, a > b or bounds that leave nothing, an
            interval without a number of the dtype, elements that share memory, a place outside its whole.
    """
    return _drawn(
        trunc_normal_row,
        "trunc_normal_",
        tensor,
        (mean, std, a, b),
        (seed, generator, stream),
        (offset, shape, strides),
    )


def xavier_uniform_(
    tensor: Tensor,
    gain: float = 1.0,
    generator: torch.Generator | None = None,
    *,
    seed: int | None = None,
    stream: str | int = 0,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Glorot's uniform: bound ``gain * sqrt(6 / (fan_in + fan_out))``, the fans of the whole.

    "Understanding the difficulty of training deep feedforward neural networks", Glorot and Bengio, 2010. Of a
    shape [out, in, ...] the fans are ``in`` and ``out`` times the number of elements of the rest.

    Args:
        tensor: of 2 or more dimensions, float32, float64, float16 or bfloat16; written in place.
        gain: see :func:`torch.nn.init.calculate_gain`.
        generator, seed, stream, offset, shape, strides: those of every sampler, see :mod:`pyparam.init`.

    Returns:
        The tensor.

    Raises:
        TypeError: as :func:`uniform_`.
        ValueError: fewer than 2 dimensions, a gain that is not finite, elements that share memory, a place
            outside its whole.
    """
    return _drawn(
        xavier_uniform_row,
        "xavier_uniform_",
        tensor,
        (gain,),
        (seed, generator, stream),
        (offset, shape, strides),
    )


def xavier_normal_(
    tensor: Tensor,
    gain: float = 1.0,
    generator: torch.Generator | None = None,
    *,
    seed: int | None = None,
    stream: str | int = 0,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Glorot's normal: std ``gain * sqrt(2 / (fan_in + fan_out))``, the fans of the whole.

    "Understanding the difficulty of training deep feedforward neural networks", Glorot and Bengio, 2010. Of a
    shape [out, in, ...] the fans are ``in`` and ``out`` times the number of elements of the rest.

    Args:
        tensor: of 2 or more dimensions, float32, float64, float16 or bfloat16; written in place.
        gain: see :func:`torch.nn.init.calculate_gain`.
        generator, seed, stream, offset, shape, strides: those of every sampler, see :mod:`pyparam.init`.

    Returns:
        The tensor.

    Raises:
        TypeError: as :func:`uniform_`.
        ValueError: fewer than 2 dimensions, a gain that is not finite, elements that share memory, a place
            outside its whole.
    """
    return _drawn(
        xavier_normal_row,
        "xavier_normal_",
        tensor,
        (gain,),
        (seed, generator, stream),
        (offset, shape, strides),
    )


def _warn_of_no_elements(tensor: Tensor) -> None:
    if isinstance(tensor, Tensor) and shape_error(tensor) is None and 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: torch.Generator | None = None,
    *,
    seed: int | None = None,
    stream: str | int = 0,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """He's uniform: bound ``gain * sqrt(3 / fan)``, the fan of the whole.

    "Delving deep into rectifiers", He et al., 2015. Of a shape [out, in, ...] the fans are ``in`` and ``out``
    times the number of elements of the rest. A tensor without elements is left as it is, with PyTorch's
    warning.

    Args:
        tensor: of 2 or more dimensions, float32, float64, float16 or bfloat16; written in place.
        a: the negative slope, for ``nonlinearity="leaky_relu"``.
        mode: "fan_in" keeps the variance of what goes forward, "fan_out" of what goes back.
        nonlinearity: a name that :func:`torch.nn.init.calculate_gain` knows.
        generator, seed, stream, offset, shape, strides: those of every sampler, see :mod:`pyparam.init`.

    Returns:
        The tensor.

    Raises:
        TypeError: as :func:`uniform_`.
        ValueError: fewer than 2 dimensions, another mode or nonlinearity, elements that share memory, a place
            outside its whole.
    """
    _warn_of_no_elements(tensor)
    arguments = (a, mode, nonlinearity)
    return _drawn(
        kaiming_uniform_row,
        "kaiming_uniform_",
        tensor,
        arguments,
        (seed, generator, stream),
        (offset, shape, strides),
    )


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: torch.Generator | None = None,
    *,
    seed: int | None = None,
    stream: str | int = 0,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """He's normal: std ``gain / sqrt(fan)``, the fan of the whole.

    "Delving deep into rectifiers", He et al., 2015. Of a shape [out, in, ...] the fans are ``in`` and ``out``
    times the number of elements of the rest. A tensor without elements is left as it is, with PyTorch's
    warning.

    Args:
        tensor: of 2 or more dimensions, float32, float64, float16 or bfloat16; written in place.
        a: the negative slope, for ``nonlinearity="leaky_relu"``.
        mode: "fan_in" keeps the variance of what goes forward, "fan_out" of what goes back.
        nonlinearity: a name that :func:`torch.nn.init.calculate_gain` knows.
        generator, seed, stream, offset, shape, strides: those of every sampler, see :mod:`pyparam.init`.

    Returns:
        The tensor.

    Raises:
        TypeError: as :func:`uniform_`.
        ValueError: fewer than 2 dimensions, another mode or nonlinearity, elements that share memory, a place
            outside its whole.
    """
    _warn_of_no_elements(tensor)
    arguments = (a, mode, nonlinearity)
    return _drawn(
        kaiming_normal_row,
        "kaiming_normal_",
        tensor,
        arguments,
        (seed, generator, stream),
        (offset, shape, strides),
    )


# ---- what needs no random numbers: seed, stream and place are accepted, and ignored where they change
# nothing --


def _set(
    what: str, tensor: Tensor, val: float, *, offset: Offset, shape: Shape | None, strides: Shape | None
) -> Tensor:
    target, _ = located(tensor, what, offset, shape, strides)
    try:
        with torch.no_grad():
            target.fill_(val)
    except RuntimeError as error:
        # PyTorch checks the value before it writes, and names C++'s type for the dtype.
        if "without overflow" not in str(error):
            raise
        raise ValueError(f"{what}: {val} is beyond what {target.dtype} can hold") from None
    return tensor


def constant_(
    tensor: Tensor,
    val: float,
    *,
    seed: int | None = None,
    stream: str | int | None = None,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills with one value, in any dtype.

    Args:
        tensor: of any shape and dtype; written in place.
        val: the value, which the dtype must be able to hold.
        seed, stream: taken and ignored: nothing is drawn.
        offset, shape, strides: the place of a part in its whole, see :mod:`pyparam.init`.

    Returns:
        The tensor.

    Raises:
        TypeError: no tensor, or one that is lazy, nested or a wrapper.
        ValueError: a value beyond the dtype, a place outside its whole.
    """
    return _set("constant_", tensor, val, offset=offset, shape=shape, strides=strides)


def ones_(
    tensor: Tensor,
    *,
    seed: int | None = None,
    stream: str | int | None = None,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills with ones, in any dtype.

    Args:
        tensor: of any shape and dtype; written in place.
        seed, stream: taken and ignored: nothing is drawn.
        offset, shape, strides: the place of a part in its whole, see :mod:`pyparam.init`.

    Returns:
        The tensor.

    Raises:
        TypeError: no tensor, or one that is lazy, nested or a wrapper.
        ValueError: a place outside its whole.
    """
    return _set("ones_", tensor, 1.0, offset=offset, shape=shape, strides=strides)


def zeros_(
    tensor: Tensor,
    *,
    seed: int | None = None,
    stream: str | int | None = None,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills with zeros, in any dtype.

    Args:
        tensor: of any shape and dtype; written in place.
        seed, stream: taken and ignored: nothing is drawn.
        offset, shape, strides: the place of a part in its whole, see :mod:`pyparam.init`.

    Returns:
        The tensor.

    Raises:
        TypeError: no tensor, or one that is lazy, nested or a wrapper.
        ValueError: a place outside its whole.
    """
    return _set("zeros_", tensor, 0.0, offset=offset, shape=shape, strides=strides)


# What initialize_ can do in one native call for all parameters: sampler -> row of (shape, the sampler's
# arguments).
ROWS: dict[Callable[..., Tensor], Callable[..., Row]] = {
    constant_: constant_row,
    ones_: ones_row,
    zeros_: zeros_row,
    uniform_: uniform_row,
    normal_: normal_row,
    trunc_normal_: trunc_normal_row,
    xavier_uniform_: xavier_uniform_row,
    xavier_normal_: xavier_normal_row,
    kaiming_uniform_: kaiming_uniform_row,
    kaiming_normal_: kaiming_normal_row,
}
