"""How much a file may unfold to: what is small on disk stays small in memory, or is refused."""

from __future__ import annotations

from pathlib import Path

MOST_NAMES = 4_000_000
"""A file lists at most so many names, and one of n bytes at most n / 16 (but 10,000 in any case)."""
DEEPEST = 1_000
"""Containers, or modules, inside one another."""


class Names:
    """Counts the names that a file unfolds to, and what they take."""

    __slots__ = ("_characters", "_count", "_most", "_path")

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._most = min(MOST_NAMES, max(10_000, size // 16))
        self._count = self._most
        self._characters = (32 << 20) + 4 * size

    def spend(self, name: str) -> None:
        """Raises ValueError for the name that is too much."""
        self._count -= 1
        self._characters -= len(name)
        if self._count < 0 or self._characters < 0:
            raise ValueError(
                f"{self._path} unfolds to more names than its size can explain; at most {self._most} are "
                "listed"
            )

    def check_depth(self, depth: int) -> None:
        """Raises ValueError for what is nested too deeply."""
        if depth > DEEPEST:
            raise ValueError(f"{self._path} is nested more than {DEEPEST} deep")
