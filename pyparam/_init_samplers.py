"""Samplers: PyTorch's own names and arguments, drawn from counters instead of a generator's state.

A sampler that is one native fill has a *row*: the kind and the parameters of its distribution, from the shape
alone. ``initialize_`` fills a whole model from rows in one call; a sampler called by itself makes the same
row.

Every sampler takes, besides PyTorch's arguments:

- ``seed``: an integer in [0, 2**64).
- ``stream``: the parameter's qualified name, or an integer in [0, 2**64). Element i is a function of
  (seed, stream, i) alone, i being its row-major index, whatever the memory format.
- ``shape``, ``offset``, ``strides``: for a tensor that is a part of a whole. ``shape`` is the whole's shape;
  ``offset`` the flat index in it, or the coordinates, of the part's first element; ``strides`` the steps in
  the whole's flat index along each dimension of the part, by default those of a block (a part of as many
  dimensions) or of a run (a part of one dimension). The part gets the values the whole would have there.

They write in place under no_grad and return the tensor. float32, float64, float16 and bfloat16 can be drawn;
16-bit values are the float32 values rounded to nearest even. PyTorch's random state is neither read nor
changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.init import calculate_gain

from pyparam._init_fill import (
    CONSTANT,
    NORMAL,
    TRUNCATED,
    UNIFORM,
    Part,
    Row,
    contiguous_strides,
    fill_,
    flat_indices,
    ordinary,
    part_of,
    seed_of,
    stream_of,
    substream,
)
from pyparam._init_parts import local_part

__all__ = [
    "ROWS",
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

Offset = int | Sequence[int]
Shape = Sequence[int]


# ---- rows: the distribution each sampler means, for a whole of a given shape ------------------------------


def _finite(what: str, **numbers: float) -> None:
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
    _finite("uniform_", a=a, b=b)
    if a > b:
        raise ValueError(f"uniform_: expected a <= b, got a={a}, b={b}")
    if not math.isfinite(b - a):
        raise ValueError(f"uniform_: b - a must be finite, got a={a}, b={b}")
    return Row(UNIFORM, a, b)


def _normal_row(shape: Shape, mean: float = 0.0, std: float = 1.0) -> Row:
    _finite("normal_", mean=mean, std=std)
    if std < 0:
        raise ValueError(f"normal_: expected std >= 0, got {std}")
    return Row(NORMAL, mean, std)


def _trunc_normal_row(
    shape: Shape, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Row:
    _finite("trunc_normal_", mean=mean, std=std)
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
    _finite(what, gain=gain)
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


def _located(
    tensor: Tensor, what: str, offset: Offset, shape: Shape | None, strides: Shape | None
) -> tuple[Tensor, Part]:
    """The tensor to write to and where it lies in its whole; a DTensor knows both itself."""
    if offset == 0 and shape is None and strides is None:
        sharded = local_part(tensor, what)
        if sharded is not None:
            return sharded
    return ordinary(tensor, what), part_of(tensor, what, offset, shape, strides)


def _drawn(
    row: Callable[..., Row],
    what: str,
    tensor: Tensor,
    arguments: tuple[Any, ...],
    seed: int,
    stream: str | int,
    offset: Offset,
    shape: Shape | None,
    strides: Shape | None,
) -> Tensor:
    key, channel = seed_of(seed, what), stream_of(stream, what)
    target, part = _located(tensor, what, offset, shape, strides)
    fill_(target, row(part.shape, *arguments), what, seed=key, stream=channel, part=part)
    return tensor


def uniform_(
    tensor: Tensor,
    a: float = 0.0,
    b: float = 1.0,
    *,
    seed: int,
    stream: str | int,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills with the uniform distribution on [a, b): multiples of 2**-24 (2**-53 in float64) of b - a."""
    return _drawn(_uniform_row, "uniform_", tensor, (a, b), seed, stream, offset, shape, strides)


def normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    *,
    seed: int,
    stream: str | int,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills with a normal, by Box and Muller. Draws lie within 6.77 deviations (8.66 in float64)."""
    return _drawn(_normal_row, "normal_", tensor, (mean, std), seed, stream, offset, shape, strides)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    *,
    seed: int,
    stream: str | int,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills with a normal cut to [a, b] (not in deviations), by inversion; infinite bounds are allowed.

    An interval in the far tail, where PyTorch's erfinv saturates, is drawn from correctly.
    """
    return _drawn(
        _trunc_normal_row, "trunc_normal_", tensor, (mean, std, a, b), seed, stream, offset, shape, strides
    )


def xavier_uniform_(
    tensor: Tensor,
    gain: float = 1.0,
    *,
    seed: int,
    stream: str | int,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Glorot's uniform: bound ``gain * sqrt(6 / (fan_in + fan_out))``, the fans of the whole."""
    return _drawn(
        _xavier_uniform_row, "xavier_uniform_", tensor, (gain,), seed, stream, offset, shape, strides
    )


def xavier_normal_(
    tensor: Tensor,
    gain: float = 1.0,
    *,
    seed: int,
    stream: str | int,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Glorot's normal: std ``gain * sqrt(2 / (fan_in + fan_out))``, the fans of the whole."""
    return _drawn(_xavier_normal_row, "xavier_normal_", tensor, (gain,), seed, stream, offset, shape, strides)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    seed: int,
    stream: str | int,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """He's uniform: bound ``gain * sqrt(3 / fan)``, the fan of the whole."""
    arguments = (a, mode, nonlinearity)
    return _drawn(
        _kaiming_uniform_row, "kaiming_uniform_", tensor, arguments, seed, stream, offset, shape, strides
    )


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    seed: int,
    stream: str | int,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """He's normal: std ``gain / sqrt(fan)``, the fan of the whole."""
    arguments = (a, mode, nonlinearity)
    return _drawn(
        _kaiming_normal_row, "kaiming_normal_", tensor, arguments, seed, stream, offset, shape, strides
    )


# ---- what needs no random numbers: seed, stream and place are accepted, and ignored where they change
# nothing --


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
    target, _ = _located(tensor, "constant_", offset, shape, strides)
    with torch.no_grad():
        target.fill_(val)
    return tensor


def ones_(tensor: Tensor, **placed: Any) -> Tensor:
    """Fills with ones, in any dtype."""
    return constant_(tensor, 1.0, **placed)


def zeros_(tensor: Tensor, **placed: Any) -> Tensor:
    """Fills with zeros, in any dtype."""
    return constant_(tensor, 0.0, **placed)


def eye_(
    tensor: Tensor,
    *,
    seed: int | None = None,
    stream: str | int | None = None,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills a matrix with the identity, or a part with its part of the identity."""
    target, part = _located(tensor, "eye_", offset, shape, strides)
    if len(part.shape) != 2:
        raise ValueError(f"eye_: only tensors with 2 dimensions are supported, got shape {part.shape}")
    if target.is_meta:
        return tensor
    with torch.no_grad():
        if part.is_whole:
            target.zero_()
            target.diagonal().fill_(1)
        else:
            flat = flat_indices(target, part)
            target.copy_(flat // part.shape[1] == flat % part.shape[1])
    return tensor


def dirac_(
    tensor: Tensor,
    groups: int = 1,
    *,
    seed: int | None = None,
    stream: str | int | None = None,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills a convolution's weight so that it passes its input on, in each of ``groups`` groups."""
    target, part = _located(tensor, "dirac_", offset, shape, strides)
    whole = part.shape
    if len(whole) not in (3, 4, 5):
        raise ValueError(f"dirac_: only tensors with 3, 4 or 5 dimensions are supported, got shape {whole}")
    if groups < 1 or whole[0] % groups != 0:
        raise ValueError(f"dirac_: dim 0 ({whole[0]}) must be divisible by groups ({groups})")
    if target.is_meta:
        return tensor
    field = math.prod(whole[2:])
    centre = sum(
        size // 2 * step for size, step in zip(whole[2:], contiguous_strides(whole[2:]), strict=True)
    )
    with torch.no_grad():
        if part.is_whole:
            per_group = whole[0] // groups
            diagonal = torch.arange(min(per_group, whole[1]))
            target.zero_()
            for size in reversed(whole[2:]):
                target = target[..., size // 2] if size else target
            for group in range(groups):
                target[group * per_group + diagonal, diagonal] = 1
        else:
            flat = flat_indices(target, part)
            channel, inside = flat // field, flat % field
            out, into = channel // whole[1], channel % whole[1]
            target.copy_((out % (whole[0] // groups) == into) & (inside == centre))
    return tensor


# ---- what depends on the whole tensor: a part computes the whole and takes its own ------------------------


def _taken(whole: Tensor, target: Tensor, part: Part) -> Tensor:
    if part.is_whole:
        return whole.reshape(target.shape)
    strides = part.strides or contiguous_strides(tuple(target.shape))
    return whole.reshape(-1).as_strided(tuple(target.shape), strides, part.offset)


def orthogonal_(
    tensor: Tensor,
    gain: float = 1,
    *,
    seed: int,
    stream: str | int,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills with a (semi-)orthogonal matrix, dimensions after the first taken together (Saxe et al., 2013).

    The normals are exact on every machine; the QR factorisation is LAPACK's, done in float64, so results
    agree between machines to float64 rounding. A part costs as much as the whole.
    """
    what = "orthogonal_"
    key, channel = seed_of(seed, what), stream_of(stream, what)
    target, part = _located(tensor, what, offset, shape, strides)
    if len(part.shape) < 2:
        raise ValueError(
            f"{what}: only tensors with 2 or more dimensions are supported, got shape {part.shape}"
        )
    _finite(what, gain=gain)
    if target.numel() == 0 or target.is_meta:
        return tensor
    _drawable(target, what)
    rows = part.shape[0]
    columns = math.prod(part.shape[1:])
    flat = torch.empty(rows, columns, dtype=torch.float64)
    fill_(flat, Row(NORMAL, 0.0, 1.0), what, seed=key, stream=channel, part=Part((rows, columns), 0, ()))
    q, r = torch.linalg.qr(flat if rows >= columns else flat.t())
    q *= torch.where(r.diagonal() < 0, -1.0, 1.0)
    if rows < columns:
        q = q.t()
    with torch.no_grad():
        target.copy_(_taken(q * gain, target, part))
    return tensor


def sparse_(
    tensor: Tensor,
    sparsity: float,
    std: float = 0.01,
    *,
    seed: int,
    stream: str | int,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills a matrix with normals, and ``ceil(sparsity * rows)`` of each column with zeros, at random."""
    what = "sparse_"
    key, channel = seed_of(seed, what), stream_of(stream, what)
    target, part = _located(tensor, what, offset, shape, strides)
    if len(part.shape) != 2:
        raise ValueError(f"{what}: only tensors with 2 dimensions are supported, got shape {part.shape}")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"{what}: expected 0 <= sparsity <= 1, got {sparsity}")
    fill_(target, _normal_row(part.shape, 0.0, std), what, seed=key, stream=channel, part=part)
    if target.numel() == 0 or target.is_meta:
        return tensor
    order = torch.empty(part.shape, dtype=torch.float64)
    fill_(
        order,
        Row(UNIFORM, 0.0, 1.0),
        what,
        seed=key,
        stream=substream(channel, "order"),
        part=Part(part.shape, 0, ()),
    )
    zeros = order.argsort(dim=0, stable=True)[: math.ceil(sparsity * part.shape[0])]
    mask = torch.zeros(part.shape, dtype=torch.bool).scatter_(0, zeros, True)
    with torch.no_grad():
        target.masked_fill_(_taken(mask, target, part).to(target.device), 0)
    return tensor


def _drawable(tensor: Tensor, what: str) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f"{what}: expected a floating-point tensor, got dtype {tensor.dtype}")


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
