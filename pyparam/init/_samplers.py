"""Samplers: PyTorch's own names and arguments, drawn from counters instead of a generator's state.

A sampler that is one native fill has a *row*: the kind and the parameters of its distribution, from the shape
alone. ``initialize_`` fills a whole model from rows in one call; a sampler called by itself makes the same
row.

Every sampler takes, besides PyTorch's arguments:

- ``seed``: an integer in [0, 2**64). Left out, a number is drawn from ``generator``, or from PyTorch's
  default one, so that ``torch.manual_seed`` counts and no two calls give the same values: ``net.apply`` of a
  function that calls samplers works as with ``torch.nn.init``.
- ``stream``: the parameter's qualified name, or an integer in [0, 2**64). Element i is a function of
  (seed, stream, i) alone, i being its row-major index, whatever the memory format.
- ``shape``, ``offset``, ``strides``: for a tensor that is a part of a whole. ``shape`` is the whole's shape;
  ``offset`` the flat index in it, or the coordinates, of the part's first element; ``strides`` the steps in
  the whole's flat index along each dimension of the part, by default those of a block (a part of as many
  dimensions) or of a run (a part of one dimension). The part gets the values the whole would have there.

They write in place under no_grad and return the tensor. float32, float64, float16 and bfloat16 can be drawn;
16-bit values are the float32 values rounded to nearest even; where that would leave an interval that was
asked for, they are the nearest in it. What the dtype cannot hold is a ValueError before anything is written:
a bound or a range beyond its largest number, an interval without one of its numbers, a normal whose draws
(see ``normal_``) would overflow. With a seed, PyTorch's random state is neither read nor changed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.init import calculate_gain

from pyparam._base.extent import shape_error
from pyparam.init._fill import (
    CONSTANT,
    NORMAL,
    TRUNCATED,
    UNIFORM,
    Part,
    Row,
    fill_,
    ordinary,
    part_of,
    seed_of,
    stream_of,
)
from pyparam.init._parts import local_part

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
Shape = Sequence[int]


# ---- rows: the distribution each sampler means, for a whole of a given shape ------------------------------


def finite(what: str, **numbers: float) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{what}: {name} must be a number, got {type(value).__name__}")
        if not math.isfinite(value):
            raise ValueError(f"{what}: {name} must be finite, got {value}")


def _constant_row(shape: Shape, val: float) -> Row:
    return Row(CONSTANT, val)


def _ones_row(shape: Shape) -> Row:
    return Row(CONSTANT, 1.0)


def _zeros_row(shape: Shape) -> Row:
    return Row(CONSTANT, 0.0)


def _uniform_row(shape: Shape, a: float = 0.0, b: float = 1.0) -> Row:
    finite("uniform_", a=a, b=b)
    if a > b:
        raise ValueError(f"uniform_: expected a <= b, got a={a}, b={b}")
    if not math.isfinite(b - a):
        raise ValueError(f"uniform_: b - a must be finite, got a={a}, b={b}")
    return Row(UNIFORM, a, b)


def _normal_row(shape: Shape, mean: float = 0.0, std: float = 1.0) -> Row:
    finite("normal_", mean=mean, std=std)
    if std < 0:
        raise ValueError(f"normal_: expected std >= 0, got {std}")
    return Row(NORMAL, mean, std)


def _trunc_normal_row(
    shape: Shape, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Row:
    finite("trunc_normal_", mean=mean, std=std)
    if std < 0:
        raise ValueError(f"trunc_normal_: expected std >= 0, got {std}")
    if not a <= b or a == math.inf or b == -math.inf:
        raise ValueError(f"trunc_normal_: expected a <= b, got a={a}, b={b}")
    return Row(TRUNCATED, mean, std, a, b)


def _fans(shape: Shape, what: str) -> tuple[int, int]:
    if len(shape) < 2:
        raise ValueError(
            f"{what}: fan in and fan out can not be computed for a tensor with fewer than 2 dimensions, "
            f"got shape {tuple(shape)}"
        )
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _nothing(shape: Shape) -> bool:
    return math.prod(shape) == 0


def _xavier_std(shape: Shape, gain: float, what: str) -> float:
    fan_in, fan_out = _fans(shape, what)
    finite(what, gain=gain)
    return 0.0 if _nothing(shape) else gain * math.sqrt(2.0 / float(fan_in + fan_out))


def _xavier_uniform_row(shape: Shape, gain: float = 1.0) -> Row:
    bound = math.sqrt(3.0) * _xavier_std(shape, gain, "xavier_uniform_")
    return _uniform_row(shape, -bound, bound)


def _xavier_normal_row(shape: Shape, gain: float = 1.0) -> Row:
    return _normal_row(shape, 0.0, _xavier_std(shape, gain, "xavier_normal_"))


def _kaiming_std(shape: Shape, a: float, mode: str, nonlinearity: str, what: str) -> float:
    chosen = mode.lower()
    if chosen not in ("fan_in", "fan_out"):
        raise ValueError(f"{what}: mode {mode!r} not supported, please use one of ['fan_in', 'fan_out']")
    fan_in, fan_out = _fans(shape, what)
    gain = calculate_gain(nonlinearity, a)  # type: ignore[arg-type]
    return 0.0 if _nothing(shape) else gain / math.sqrt(fan_in if chosen == "fan_in" else fan_out)


def _kaiming_uniform_row(
    shape: Shape, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Row:
    bound = math.sqrt(3.0) * _kaiming_std(shape, a, mode, nonlinearity, "kaiming_uniform_")
    return _uniform_row(shape, -bound, bound)


def _kaiming_normal_row(
    shape: Shape, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Row:
    return _normal_row(shape, 0.0, _kaiming_std(shape, a, mode, nonlinearity, "kaiming_normal_"))


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
    """
    return _drawn(
        _uniform_row, "uniform_", tensor, (a, b), (seed, generator, stream), (offset, shape, strides)
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
    """Fills with a normal, by Box and Muller. Draws lie within 6.77 deviations (8.66 in float64)."""
    return _drawn(
        _normal_row, "normal_", tensor, (mean, std), (seed, generator, stream), (offset, shape, strides)
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
    """
    return _drawn(
        _trunc_normal_row,
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
    """Glorot's uniform: bound ``gain * sqrt(6 / (fan_in + fan_out))``, the fans of the whole."""
    return _drawn(
        _xavier_uniform_row,
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
    """Glorot's normal: std ``gain * sqrt(2 / (fan_in + fan_out))``, the fans of the whole."""
    return _drawn(
        _xavier_normal_row,
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
    """He's uniform: bound ``gain * sqrt(3 / fan)``, the fan of the whole."""
    _warn_of_no_elements(tensor)
    arguments = (a, mode, nonlinearity)
    return _drawn(
        _kaiming_uniform_row,
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
    """He's normal: std ``gain / sqrt(fan)``, the fan of the whole."""
    _warn_of_no_elements(tensor)
    arguments = (a, mode, nonlinearity)
    return _drawn(
        _kaiming_normal_row,
        "kaiming_normal_",
        tensor,
        arguments,
        (seed, generator, stream),
        (offset, shape, strides),
    )


# ---- what needs no random numbers: seed, stream and place are accepted, and ignored where they change
# nothing --


def _set(
    what: str,
    tensor: Tensor,
    val: float,
    *,
    seed: int | None = None,
    stream: str | int | None = None,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    del seed, stream
    target, _ = located(tensor, what, offset, shape, strides)
    with torch.no_grad():
        target.fill_(val)
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
    """Fills with one value, in any dtype."""
    return _set("constant_", tensor, val, offset=offset, shape=shape, strides=strides)


def ones_(tensor: Tensor, **placed: Any) -> Tensor:
    """Fills with ones, in any dtype."""
    return _set("ones_", tensor, 1.0, **placed)


def zeros_(tensor: Tensor, **placed: Any) -> Tensor:
    """Fills with zeros, in any dtype."""
    return _set("zeros_", tensor, 0.0, **placed)


# What initialize_ can do in one native call for all parameters: sampler -> row of (shape, the sampler's
# arguments).
ROWS: dict[Callable[..., Tensor], Callable[..., Row]] = {
    constant_: _constant_row,
    ones_: _ones_row,
    zeros_: _zeros_row,
    uniform_: _uniform_row,
    normal_: _normal_row,
    trunc_normal_: _trunc_normal_row,
    xavier_uniform_: _xavier_uniform_row,
    xavier_normal_: _xavier_normal_row,
    kaiming_uniform_: _kaiming_uniform_row,
    kaiming_normal_: _kaiming_normal_row,
}
