"""Rows: the distribution that each sampler means, for a whole of a given shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch.nn.init import calculate_gain

from pyparam.init._fill import CONSTANT, NORMAL, TRUNCATED, UNIFORM, Row

Shape = Sequence[int]


def finite(what: str, **numbers: float) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{what}: {name} must be a number, got {type(value).__name__}")
        if not math.isfinite(value):
            raise ValueError(f"{what}: {name} must be finite, got {value}")


def constant_row(shape: Shape, val: float) -> Row:
    return Row(CONSTANT, val)


def ones_row(shape: Shape) -> Row:
    return Row(CONSTANT, 1.0)


def zeros_row(shape: Shape) -> Row:
    return Row(CONSTANT, 0.0)


def uniform_row(shape: Shape, a: float = 0.0, b: float = 1.0) -> Row:
    finite("uniform_", a=a, b=b)
    if a > b:
        raise ValueError(f"uniform_: expected a <= b, got a={a}, b={b}")
    if not math.isfinite(b - a):
        raise ValueError(f"uniform_: b - a must be finite, got a={a}, b={b}")
    return Row(UNIFORM, a, b)


def normal_row(shape: Shape, mean: float = 0.0, std: float = 1.0) -> Row:
    finite("normal_", mean=mean, std=std)
    if std < 0:
        raise ValueError(f"normal_: expected std >= 0, got {std}")
    return Row(NORMAL, mean, std)


def trunc_normal_row(
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


def xavier_uniform_row(shape: Shape, gain: float = 1.0) -> Row:
    bound = math.sqrt(3.0) * _xavier_std(shape, gain, "xavier_uniform_")
    return uniform_row(shape, -bound, bound)


def xavier_normal_row(shape: Shape, gain: float = 1.0) -> Row:
    return normal_row(shape, 0.0, _xavier_std(shape, gain, "xavier_normal_"))


def _kaiming_std(shape: Shape, a: float, mode: str, nonlinearity: str, what: str) -> float:
    chosen = mode.lower()
    if chosen not in ("fan_in", "fan_out"):
        raise ValueError(f"{what}: mode {mode!r} not supported, please use one of ['fan_in', 'fan_out']")
    fan_in, fan_out = _fans(shape, what)
    try:
        gain = calculate_gain(nonlinearity, a)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    return 0.0 if _nothing(shape) else gain / math.sqrt(fan_in if chosen == "fan_in" else fan_out)


def kaiming_uniform_row(
    shape: Shape, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Row:
    bound = math.sqrt(3.0) * _kaiming_std(shape, a, mode, nonlinearity, "kaiming_uniform_")
    return uniform_row(shape, -bound, bound)


def kaiming_normal_row(
    shape: Shape, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Row:
    return normal_row(shape, 0.0, _kaiming_std(shape, a, mode, nonlinearity, "kaiming_normal_"))
