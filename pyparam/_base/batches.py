"""Cutting a list so that a bounded number of bytes is held at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def batches(sizes: Iterable[int], most: int) -> Iterator[range]:
    """The positions of all sizes, in order, as runs of at most ``most`` bytes, or of one that is larger."""
    begin = held = end = 0
    for end, size in enumerate(sizes, 1):
        if end - begin > 1 and held + size > most:
            yield range(begin, end - 1)
            begin, held = end - 1, 0
        held += size
    if end > begin:
        yield range(begin, end)
