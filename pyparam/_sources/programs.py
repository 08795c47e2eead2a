"""Programs in files, TorchScript archives and exported programs: their tensors, and none of their code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pyparam._sources.checkpoint import Checkpoint
from pyparam._sources.stored_part import Entry, StoredPart


class Program(Checkpoint):
    """A Checkpoint that tells parameters from buffers: what a program's file holds, without its code.

    As a mapping it has both, parameters under each of their names. Functions that take a source list what
    they would of the loaded program: the same names, in the same order, tied as they are there. Tensors that
    are neither, constants of the code and plain attributes, are among ``extras``.

    For the live program, load the file with torch and pass what that gives.
    """

    __slots__ = ("_buffers", "_distinct")

    def __init__(
        self,
        path: Path,
        part: StoredPart,
        entries: Sequence[Entry],
        *,
        removes_duplicates: bool,
        extras: Mapping[str, Any],
    ) -> None:
        places = {entry.name: position for position, entry in enumerate(entries)}
        super().__init__(path, [part], places=places, extras=extras)
        self._buffers = {entry.name for entry in entries if entry.is_buffer}
        seen: set[int] = set()
        # TorchScript removes a tensor's further names where PyTorch's own named_parameters would.
        self._distinct = [
            entry.name
            for entry in entries
            if not removes_duplicates or not (id(entry.stored) in seen or seen.add(id(entry.stored)))  # type: ignore[func-returns-value]
        ]

    def _listed(self, *, buffers: bool, remove_duplicate: bool) -> list[str]:
        names: Iterable[str] = self._distinct if remove_duplicate else self
        return list(names) if buffers else [name for name in names if name not in self._buffers]

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The parameters, as the loaded program's own method lists them."""
        return ((name, self[name]) for name in self._listed(buffers=False, remove_duplicate=True))

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """The buffers, as the loaded program's own method lists them."""
        return ((name, self[name]) for name in self._distinct if name in self._buffers)
