"""Files that need code to load, listed without it: names, dtypes and shapes, and no values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from pyparam._sources.checkpoint import TensorInfo
from pyparam._sources.stored import StoredTensor
from pyparam._sources.unpickle import Record


class ListedPart:
    """Tensors that can be listed and not read."""

    file = None

    def __init__(self, path: Path, tensors: dict[str, StoredTensor], why: str) -> None:
        self.path = path
        self._names = list(tensors)
        self._tensors = list(tensors.values())
        self._why = why

    @property
    def names(self) -> list[str]:
        return self._names

    def info(self, position: int) -> TensorInfo:
        stored = self._tensors[position]
        return TensorInfo(stored.dtype, stored.shape, math.prod(stored.shape) * stored.dtype.itemsize)

    def byte_range(self, position: int) -> None:
        return None

    def tensor(self, position: int) -> NoReturn:
        raise ValueError(f"{self._names[position]!r} is listed only: {self._why}")

    def close(self) -> None:
        pass


def entries(record: Record) -> Iterator[tuple[Any, Any]]:
    """What an object holds, as far as its state shows it; a module's entries under the names it gives
    them."""
    state = record.state
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        yield from state[1].items()
        state = state[0]
    if isinstance(state, dict):
        for key, value in state.items():
            if key in ("_parameters", "_buffers", "_modules") and isinstance(value, dict):
                yield from value.items()
            else:
                yield key, value
    for number, item in enumerate(record.entries):
        yield item if isinstance(item, tuple) and len(item) == 2 else (number, item)
