"""Samplers of whole matrices: identities, orthogonal and sparse ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyparam.init._fill import (
    NORMAL,
    UNIFORM,
    Part,
    Row,
    contiguous_strides,
    fill_,
    flat_indices,
    seed_of,
    stream_of,
    substream,
)
from pyparam.init._rows import Shape, finite
from pyparam.init._samplers import Offset, located

__all__ = ["dirac_", "eye_", "orthogonal_", "sparse_"]


def eye_(
    tensor: Tensor,
    *,
    seed: int | None = None,
    stream: str | int | None = None,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills a matrix with the identity, or a part with its part of the identity.

    Args:
        tensor: of 2 dimensions (a part: of a whole of 2), of any dtype; written in place.
        seed, stream: taken and ignored: nothing is drawn.
        offset, shape, strides: the place of a part in its whole, see :mod:`pyparam.init`.

    Returns:
        The tensor.

    Raises:
        TypeError: no tensor, or one that is lazy, nested or a wrapper.
        ValueError: another number of dimensions, a place outside its whole.
    """
    target, part = located(tensor, "eye_", offset, shape, strides)
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
    """Fills a convolution's weight so that it passes its input on, in each of ``groups`` groups.

    Args:
        tensor: of shape [out, in, ...] with 3, 4 or 5 dimensions (a part: of such a whole), of any dtype;
            written in place.
        groups: each ``out / groups`` channels pass on the first channels of their group's input.
        seed, stream: taken and ignored: nothing is drawn.
        offset, shape, strides: the place of a part in its whole, see :mod:`pyparam.init`.

    Returns:
        The tensor.

    Raises:
        TypeError: no tensor, or one that is lazy, nested or a wrapper.
        ValueError: another number of dimensions, an ``out`` that ``groups`` does not divide, a place outside
            its whole.
    """
    target, part = located(tensor, "dirac_", offset, shape, strides)
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
            diagonal = torch.arange(min(per_group, whole[1]), device="cpu")
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
    generator: torch.Generator | None = None,
    *,
    seed: int | None = None,
    stream: str | int = 0,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills with a (semi-)orthogonal matrix, dimensions after the first taken together.

    "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", Saxe et al., 2013.
    The normals are exact on every machine; the QR factorisation is LAPACK's, done in float64, so results
    agree between machines to float64 rounding. A part costs as much as the whole.

    Args:
        tensor: of 2 or more dimensions, floating-point; written in place.
        gain: what the matrix is multiplied with.
        generator, seed, stream, offset, shape, strides: those of every sampler, see :mod:`pyparam.init`.

    Returns:
        The tensor.

    Raises:
        TypeError: another dtype, a tensor that is sparse, quantized, nested, lazy or a wrapper, a seed and a
            generator.
        ValueError: fewer than 2 dimensions, a gain that is not finite, a place outside its whole.
    """
    what = "orthogonal_"
    key, channel = seed_of(seed, generator, what=what), stream_of(stream, what)
    target, part = located(tensor, what, offset, shape, strides)
    if len(part.shape) < 2:
        raise ValueError(
            f"{what}: only tensors with 2 or more dimensions are supported, got shape {part.shape}"
        )
    finite(what, gain=gain)
    if target.numel() == 0 or target.is_meta:
        return tensor
    _drawable(target, what)
    rows = part.shape[0]
    columns = math.prod(part.shape[1:])
    flat = torch.empty(rows, columns, dtype=torch.float64, device="cpu")
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
    generator: torch.Generator | None = None,
    *,
    seed: int | None = None,
    stream: str | int = 0,
    offset: Offset = 0,
    shape: Shape | None = None,
    strides: Shape | None = None,
) -> Tensor:
    """Fills a matrix with normals, and ``ceil(sparsity * rows)`` of each column with zeros, at random.

    "Deep learning via Hessian-free optimization", Martens, 2010.

    Args:
        tensor: of 2 dimensions, float32, float64, float16 or bfloat16; written in place.
        sparsity: the share of each column that is zero, from 0 to 1.
        std: of the normals, whose mean is 0.
        generator, seed, stream, offset, shape, strides: those of every sampler, see :mod:`pyparam.init`.

    Returns:
        The tensor.

    Raises:
        TypeError: as :func:`uniform_`.
        ValueError: another number of dimensions, a sparsity outside [0, 1], std < 0 or not finite, elements
            that share memory, a place outside its whole.
    """
    what = "sparse_"
    key, channel = seed_of(seed, generator, what=what), stream_of(stream, what)
    target, part = located(tensor, what, offset, shape, strides)
    if len(part.shape) != 2:
        raise ValueError(f"{what}: only tensors with 2 dimensions are supported, got shape {part.shape}")
    finite(what, std=std)
    if std < 0:
        raise ValueError(f"{what}: expected std >= 0, got {std}")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"{what}: expected 0 <= sparsity <= 1, got {sparsity}")
    fill_(target, Row(NORMAL, 0.0, std), what, seed=key, stream=channel, part=part)
    if target.numel() == 0 or target.is_meta:
        return tensor
    order = torch.empty(part.shape, dtype=torch.float64, device="cpu")
    fill_(
        order,
        Row(UNIFORM, 0.0, 1.0),
        what,
        seed=key,
        stream=substream(channel, "order"),
        part=Part(part.shape, 0, ()),
    )
    zeros = order.argsort(dim=0, stable=True)[: math.ceil(sparsity * part.shape[0])]
    mask = torch.zeros(part.shape, dtype=torch.bool, device="cpu").scatter_(0, zeros, True)
    with torch.no_grad():
        target.masked_fill_(_taken(mask, target, part).to(target.device), 0)
    return tensor


def _drawable(tensor: Tensor, what: str) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f"{what}: expected a floating-point tensor, got dtype {tensor.dtype}")
