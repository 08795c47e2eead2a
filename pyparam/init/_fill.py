"""What every sampler stands on: rows, seeds and streams, and where a part lies in its whole."""

from __future__ import annotations

import functools
import math
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import _disable_current_modes

from pyparam._base.extent import require_extent, shape_error
from pyparam._base.modes import captured_error, mixed_error
from pyparam._base.native import _C

CONSTANT, UNIFORM, NORMAL, TRUNCATED = range(4)
KEEP = -1
DRAWN_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class Row(NamedTuple):
    """One distribution, as the native fill takes it: its kind and four parameters, some of them unused."""

    kind: int
    p0: float = 0.0
    p1: float = 0.0
    p2: float = 0.0
    p3: float = 0.0


class Part(NamedTuple):
    """A tensor as part of a whole: the whole's shape, and the flat index there of each local element."""

    shape: tuple[int, ...]
    offset: int
    strides: tuple[
        int, ...
    ]  # one a dimension of the local tensor; empty where it is the whole, or a run of it

    @property
    def is_whole(self) -> bool:
        return self.offset == 0 and not self.strides


def seed_of(seed: object, generator: object = None, *, what: str) -> int:
    """Checks a seed, in [0, 2**64). None draws one from ``generator``, or from PyTorch's default one."""
    if generator is not None and seed is not None:
        raise TypeError(f"{what}: got a seed and a generator; pass one of them")
    if seed is not None:
        return _word64(seed, f"{what}: seed", "an integer")
    if generator is None:
        generator = torch.default_generator
    elif not isinstance(generator, torch.Generator):
        raise TypeError(f"{what}: generator: expected a torch.Generator, got {type(generator).__name__}")
    with _disable_current_modes():  # a mode would give a tensor without a value
        number = torch.empty((), dtype=torch.int64, device=generator.device)
        return int(number.random_(generator=generator))


def stream_of(stream: object, what: str) -> int:
    """The 64-bit number of a stream: itself, or the FNV-1a hash of a qualified name."""
    if isinstance(stream, str):
        return _C.stream_of_name(stream)
    return _word64(stream, f"{what}: stream", "a qualified name or an integer")


def substream(stream: int, purpose: str) -> int:
    """Another stream for a sampler that needs two:

    the FNV-1a hash goes on over the number and the purpose.
    """
    return _C.stream_of_name(f"{stream}/{purpose}")


def _word64(value: object, what: str, expected: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what} must be {expected}, got {type(value).__name__}")
    number = operator.index(value)
    if not 0 <= number < 2**64:
        raise ValueError(f"{what} must be in [0, 2**64), got {number}")
    return number


def signed(word: int) -> int:
    """The same 64 bits as the signed integer that a dispatcher schema can carry."""
    return word - 2**64 if word >= 2**63 else word


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def part_of(
    tensor: Tensor,
    what: str,
    offset: int | Sequence[int] = 0,
    shape: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Part:
    """Where ``tensor`` lies in its whole. Raises ValueError where it does not fit in there."""
    local = tuple(tensor.shape)
    if shape is None:
        if not isinstance(offset, int) or strides is not None or offset != 0:
            raise ValueError(f"{what}: offset and strides need shape, the shape of the whole")
        return Part(local, 0, ())
    whole = tuple(operator.index(size) for size in shape)
    steps = contiguous_strides(whole)
    corner = _corner(offset, whole, steps, what)
    flat = sum(c * s for c, s in zip(corner, steps, strict=True)) if corner else int(offset)  # type: ignore[arg-type]
    if tensor.numel() == 0:
        return Part(whole, 0, ())
    if strides is not None:
        given = tuple(operator.index(step) for step in strides)
        if len(given) != len(local) or any(step < 0 for step in given):
            raise ValueError(
                f"{what}: strides must be {len(local)} non-negative steps, one a dimension; got {given}"
            )
    elif len(local) == len(whole):
        given = steps
        if any(c + size > full for c, size, full in zip(corner, local, whole, strict=True)):
            raise ValueError(f"{what}: a part of shape {local} at {corner} leaves the whole of shape {whole}")
    elif len(local) == 1:
        given = (1,)
    else:
        raise ValueError(f"{what}: a part of shape {local} needs strides to lie in a whole of shape {whole}")
    last = flat + sum((size - 1) * step for size, step in zip(local, given, strict=True))
    if flat < 0 or last >= math.prod(whole):
        raise ValueError(
            f"{what}: a part of shape {local} with offset {flat} and strides {given} "
            f"leaves the whole of shape {whole}"
        )
    if flat == 0 and local == whole and given == steps:
        return Part(whole, 0, ())
    return Part(whole, flat, given)


def _corner(
    offset: int | Sequence[int], whole: tuple[int, ...], steps: tuple[int, ...], what: str
) -> tuple[int, ...]:
    """The coordinates of a part's first element; () for a flat offset beyond the whole, refused later."""
    if hasattr(offset, "__index__"):
        flat = operator.index(offset)
        if flat < 0 or flat >= max(math.prod(whole), 1):
            raise ValueError(f"{what}: offset {flat} leaves the whole of shape {whole}")
        corner = []
        for step in steps:
            corner.append(flat // step if step else 0)
            flat = flat % step if step else 0
        return tuple(corner)
    corner = [operator.index(c) for c in offset]
    if len(corner) != len(whole) or any(not 0 <= c <= size for c, size in zip(corner, whole, strict=False)):
        raise ValueError(f"{what}: offset {tuple(corner)} is not a point of the whole of shape {whole}")
    return tuple(corner)


def flat_indices(tensor: Tensor, part: Part) -> Tensor:
    """The index in the whole of every element, as an int64 tensor of the local shape."""
    strides = part.strides or contiguous_strides(tuple(tensor.shape))
    index = torch.full((), part.offset, dtype=torch.int64, device="cpu")
    for dim, (size, step) in enumerate(zip(tensor.shape, strides, strict=True)):
        steps = torch.arange(size, dtype=torch.int64, device="cpu") * step
        index = index + steps.reshape(-1, *[1] * (tensor.dim() - dim - 1))
    return index


def dtensor_type() -> Any:
    """DTensor, if anything in the process has loaded it."""
    module = sys.modules.get("torch.distributed.tensor")
    return getattr(module, "DTensor", None)


def ordinary(tensor: object, naming: str | Callable[[], str]) -> Tensor:
    """Refuses, by name, what no sampler can write to. ``naming`` is called only where there is an error."""
    kind = type(tensor)
    dispatch = getattr(kind, "__torch_dispatch__", None)
    plain = dispatch is None or dispatch is Tensor.__torch_dispatch__
    traced = kind.__name__ in ("FakeTensor", "FunctionalTensor")
    if isinstance(tensor, Tensor) and (plain or traced) and not is_lazy(tensor):
        if tensor.is_nested and tensor.layout == torch.strided:
            what = f"{naming}: the tensor" if isinstance(naming, str) else naming()
            raise TypeError(f"{what} {shape_error(tensor)}")
        require_extent(lambda: f"{naming}: the tensor" if isinstance(naming, str) else naming(), tensor)
        words = mixed_error(tensor) or captured_error(tensor)
        if words is not None:
            raise TypeError(f"{naming if isinstance(naming, str) else naming()}: the tensor {words}")
        return tensor
    what = naming if isinstance(naming, str) else naming()
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{what}: expected a Tensor, got {kind.__name__}")
    if is_lazy(tensor):
        raise TypeError(f"{what}: the parameter of a lazy module has no shape yet; run the module once first")
    raise TypeError(
        f"{what}: {kind.__name__} is a tensor subclass with storage of its own; fill the tensors inside it, "
        "with offset and shape where they are parts of a whole"
    )


def fill_(tensor: Tensor, row: Row, what: str, *, seed: int, stream: int, part: Part) -> Tensor:
    """Fills one tensor by one row, under no_grad, as torch.nn.init does.

    ``what`` is the sampler's name, for errors.
    """
    if tensor.numel() == 0 and not part.strides:
        return tensor
    parameters = [float(p) for p in row[1:]]
    try:
        with torch.no_grad():
            torch.ops.pyparam.fill_.one(
                tensor, row.kind, parameters, signed(seed), signed(stream), part.offset, list(part.strides)
            )
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("fill_: tensors[0]", f"{what}: the tensor")) from None
    return tensor


@functools.lru_cache(maxsize=4096)
def wanted(row: Row) -> tuple[float, float]:
    """Mean and standard deviation of a row's distribution."""
    if row.kind == CONSTANT:
        return row.p0, 0.0
    if row.kind == UNIFORM:
        return (row.p0 + row.p1) / 2, (row.p1 - row.p0) / math.sqrt(12)
    if row.kind == NORMAL:
        return row.p0, row.p1
    mean, std, low, high = row[1:]
    if std == 0 or low == high:
        return min(max(mean, low), high), 0.0
    return _truncated_moments(mean, std, (low - mean) / std, (high - mean) / std)


def _truncated_moments(mean: float, std: float, alpha: float, beta: float) -> tuple[float, float]:
    """By Simpson's rule over where the density counts:

    no cancellation in the tails, unlike the closed form.
    """
    nearest = max(alpha, -beta, 0.0)
    reach = math.sqrt(nearest * nearest + 80.0)
    low, high = max(alpha, -reach), min(beta, reach)
    steps = 2000
    total = first = second = 0.0
    anchor = min(max(0.0, low), high)
    for k in range(steps + 1):
        x = low + (high - low) * k / steps
        weight = 1 if k in (0, steps) else 4 if k % 2 else 2
        density = weight * math.exp(0.5 * (anchor - x) * (anchor + x))
        total += density
        first += density * (x - anchor)
        second += density * (x - anchor) ** 2
    shift = first / total
    return mean + std * (anchor + shift), std * math.sqrt(max(0.0, second / total - shift * shift))
