"""Copies from a map into tensors, and gives the pages back that were read."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pyparam._base.native import _C
from pyparam._sources.mapped import MappedFile

_BATCH_BYTES = 32 << 20


def stream(targets: Sequence[Tensor], sources: Sequence[Tensor], files: Sequence[MappedFile]) -> None:
    """``target.copy_(source)`` for each pair, in order, of pairs that copy plainly; all are checked first.

    Of ``files``, whose bytes some sources are, no more than a batch stays in memory.
    """
    _C.copy_tensors(list(targets), list(sources), _spans(files), _BATCH_BYTES)


def stream_pairs(pairs: _C.Pairs, files: Sequence[MappedFile]) -> None:
    """The same of pairs that native code found."""
    pairs.copy(_spans(files), _BATCH_BYTES)


def _spans(files: Sequence[MappedFile]) -> list[tuple[int, int]]:
    return [file.span() for file in files if file.size]
