"""Slow oracles of the samplers, in NumPy: Philox by the paper, the maps in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]


def philox4x32_10(counter: npt.NDArray[np.uint64], key: tuple[int, int]) -> Words:
    """Counters (..., 4) to words (..., 4)."""
    c = [counter[..., k].astype(np.uint64) for k in range(4)]
    k0, k1 = key
    mask = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [
            (p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0),
            p1 & mask,
            (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1),
            p0 & mask,
        ]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=-1).astype(np.uint32)


def words(seed: int, stream: int, count: int) -> Words:
    """The first words of a stream."""
    block = np.arange((count + 3) // 4, dtype=np.uint64)
    counter = np.stack(
        [
            block & np.uint64(0xFFFFFFFF),
            block >> np.uint64(32),
            np.full_like(block, stream & 0xFFFFFFFF),
            np.full_like(block, stream >> 32),
        ],
        axis=-1,
    )
    return philox4x32_10(counter, (seed & 0xFFFFFFFF, seed >> 32)).reshape(-1)[:count]


def uniform32(seed: int, stream: int, count: int) -> npt.NDArray[np.float32]:
    return ((words(seed, stream, count) >> 8) * np.float32(2.0**-24)).astype(np.float32)


def uniform64(seed: int, stream: int, count: int) -> npt.NDArray[np.float64]:
    w = words(seed, stream, 2 * count).astype(np.uint64)
    return ((w[1::2] << np.uint64(32) | w[::2]) >> np.uint64(11)) * 2.0**-53


def normal32(seed: int, stream: int, count: int) -> npt.NDArray[np.float64]:
    """Box and Muller on pairs of words, in float64: what float32 should come close to."""
    w = words(seed, stream, count + count % 2).astype(np.float64)
    return _box_muller(
        (w[::2] + 0.5) * 2.0**-32, (2.0**32 - 0.5 - w[::2]) * 2.0**-32, w[1::2] * 2.0**-32, count
    )


def normal64(seed: int, stream: int, count: int) -> npt.NDArray[np.float64]:
    u = uniform64(seed, stream, count + count % 2)
    return _box_muller(u[::2] + 2.0**-54, (1 - 2.0**-53 - u[::2]) + 2.0**-54, u[1::2], count)


def _box_muller(
    u: npt.NDArray[np.float64], v: npt.NDArray[np.float64], turns: npt.NDArray[np.float64], count: int
) -> npt.NDArray[np.float64]:
    """``v`` is 1 - u, known for itself so that a radius near 0 keeps its bits."""
    radius = np.sqrt(-2 * np.where(u < 0.5, np.log(u), np.log1p(-v)))
    angle = 2 * np.pi * turns
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(-1)[:count]


def fnv1a(name: str) -> int:
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value
