"""The fingerprint's formula in plain Python integers, written from its description."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

MASK = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15
# The numbers that PyTorch gives its element types (torch/headeronly/core/ScalarType.h).
NUMBER = {torch.uint8: 0, torch.int8: 1, torch.int16: 2, torch.int32: 3, torch.int64: 4}
NUMBER |= {torch.float16: 5, torch.float32: 6, torch.float64: 7, torch.complex32: 8}
NUMBER |= {torch.complex64: 9, torch.complex128: 10, torch.bool: 11, torch.bfloat16: 15}
NUMBER |= {
    torch.float8_e5m2: 23,
    torch.float8_e4m3fn: 24,
    torch.float8_e5m2fnuz: 25,
    torch.float8_e4m3fnuz: 26,
}
NUMBER |= {torch.uint16: 27, torch.uint32: 28, torch.uint64: 29}
NUMBER |= {torch.float8_e8m0fnu: 44}


def mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def sums(words: Iterable[int]) -> tuple[int, int]:
    plain = placed = 0
    for position, word in enumerate(words, 1):
        scrambled = mix((word + position * STEP) & MASK)
        plain += scrambled
        placed += position * scrambled
    return plain & MASK, placed & MASK


def finish(plain: int, placed: int) -> tuple[int, int]:
    left = plain ^ mix((placed + STEP) & MASK)
    right = placed ^ mix((left + 2 * STEP) & MASK)
    return left ^ mix((right + 3 * STEP) & MASK), right


def words_of(data: bytes) -> list[int]:
    return [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]


def logical_bytes(tensor: Tensor) -> bytes:
    whole = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if whole.numel() == 0:
        return b""
    return bytes(whole.reshape(-1).view(torch.uint8).numpy().astype(np.uint8).tobytes())


def digest(tensor: Tensor) -> tuple[int, int]:
    record = [*sums(words_of(logical_bytes(tensor))), NUMBER[tensor.dtype], tensor.dim(), *tensor.shape]
    return finish(*sums(record))


def digits(low_high: tuple[int, int]) -> str:
    low, high = low_high
    return f"{high:016x}{low:016x}"


def total(pairs: Iterable[tuple[str, Tensor]]) -> str:
    low = high = count = 0
    for name, tensor in pairs:
        text = name.encode()
        entry = finish(*sums([*digest(tensor), len(text), *words_of(text)]))
        low, high, count = low + entry[0], high + entry[1], count + 1
    return digits(finish(*sums([low & MASK, high & MASK, count])))
