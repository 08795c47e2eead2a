"""What two tensors differ by, in Python's own numbers, element by element: slow and exact."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor


def parts(tensor: Tensor) -> list[list[float | int]]:
    """The numbers of each element: one, or the two of a complex element."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    if flat.is_complex():
        if flat.dtype == torch.complex32:
            flat = flat.to(torch.complex64)
        return torch.view_as_real(flat).to(torch.float64).tolist()
    if flat.dtype.is_floating_point:
        return [[x] for x in flat.to(torch.float64).tolist()]
    return [[int(x)] for x in flat.tolist()]


def bits(tensor: Tensor) -> list[bytes]:
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    size = flat.element_size()
    data = flat.view(torch.uint8).numpy().astype(np.uint8).tobytes() if flat.numel() else b""
    return [data[i : i + size] for i in range(0, len(data), size)]


def same_value(x: float, y: float) -> bool:
    return x == y or (x != x and y != y)


def root(x: Fraction) -> float:
    """The square root, also of fractions outside of float64's range."""
    if x == 0:
        return 0.0
    shift = (x.numerator.bit_length() - x.denominator.bit_length()) // 2 * 2
    scaled = math.sqrt(x / Fraction(2) ** shift)
    try:
        return math.ldexp(scaled, shift // 2)
    except OverflowError:
        return math.inf


def number(x: Fraction) -> float:
    try:
        return float(x)
    except OverflowError:
        return math.inf


def compare(a: Tensor, b: Tensor) -> dict[str, float | int]:
    alike = a.dtype == b.dtype
    parts_a, parts_b = parts(a), parts(b)
    if alike:
        agree = [[x == y] for x, y in zip(bits(a), bits(b), strict=True)]
        if a.is_complex():
            half = a.element_size() // 2
            agree = [
                [x[:half] == y[:half], x[half:] == y[half:]] for x, y in zip(bits(a), bits(b), strict=True)
            ]
    else:
        width = 2 if a.is_complex() or b.is_complex() else 1
        parts_a = [[*x, 0.0][:width] for x in parts_a]
        parts_b = [[*y, 0.0][:width] for y in parts_b]
        agree = [
            [same_value(float(p), float(q)) for p, q in zip(x, y, strict=True)]
            for x, y in zip(parts_a, parts_b, strict=True)
        ]
    differing = [i for i, element in enumerate(agree) if not all(element)]
    pairs: list[tuple[Fraction, Fraction]] = []
    nonfinite = 0
    for x, y, same in zip(parts_a, parts_b, agree, strict=True):
        for p, q, equal in zip(x, y, same, strict=True):
            if math.isfinite(p) and math.isfinite(q):
                pairs.append((Fraction(p), Fraction(q)))
            else:
                nonfinite += not equal
    distances = [abs(p - q) for p, q in pairs]
    squares = sum((d * d for d in distances), Fraction(0))
    squares_a = sum((p * p for p, _ in pairs), Fraction(0))
    squares_b = sum((q * q for _, q in pairs), Fraction(0))
    product = sum((p * q for p, q in pairs), Fraction(0))
    cosine = 1.0
    if squares and squares_a and squares_b:
        sign = -1.0 if product < 0 else 1.0
        cosine = sign * root(product * product / (squares_a * squares_b))
    elif squares:
        cosine = 0.0
    rel = 0.0
    if squares:
        rel = root(squares / squares_a) if squares_a else math.inf
    return {
        "max_abs": number(max(distances, default=Fraction(0))),
        "mean_abs": number(sum(distances, Fraction(0)) / len(pairs)) if pairs else 0.0,
        "l2": root(squares),
        "rel_l2": rel,
        "cosine": cosine,
        "numel": len(agree),
        "differing": len(differing),
        "nonfinite": nonfinite,
        "first": differing[0] if differing else -1,
    }
