"""Where the names of a checkpoint are: two columns, in which someone may look by name."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import Any


class Places(Mapping[str, int]):
    """A number for each name, in order.

    Of half a million, a dict and its numbers take more than what is known of their tensors: it is made when
    someone first asks for a name.
    """

    __slots__ = ("_by_name", "names", "numbers")

    def __init__(self, names: list[str], numbers: array[int]) -> None:
        """``names`` differ, and nobody else changes the list."""
        self.names = names
        self.numbers = numbers
        self._by_name: dict[str, int] | None = None

    @classmethod
    def of(cls, places: Mapping[str, int]) -> Places:
        return places if isinstance(places, Places) else cls(list(places), array("Q", places.values()))

    def _dict(self) -> dict[str, int]:
        if self._by_name is None:
            self._by_name = dict(zip(self.names, self.numbers, strict=True))
        return self._by_name

    def __getitem__(self, name: str) -> int:
        return self._dict()[name]

    def get(self, name: Any, default: Any = None) -> Any:
        return self._dict().get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._dict()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
