"""Copies from a map into tensors, batch after batch, and gives the pages back that were read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from pyparam._base.native import _C
from pyparam._sources.mapped import MappedFile

_BATCH_BYTES = 32 << 20


def stream(targets: Sequence[Tensor], sources: Sequence[Tensor], files: Sequence[MappedFile]) -> None:
    """``target.copy_(source)`` for each pair, in order, of pairs that copy plainly.

    Of ``files``, whose bytes some sources are, no more than a batch stays in memory.
    """
    if not files:
        _C.copy_tensors(list(targets), list(sources))
        return
    spans = [(*file.span(), file) for file in files]
    for batch_targets, batch_sources in _batches(targets, sources):
        _C.copy_tensors(batch_targets, batch_sources)
        for address, size, file in spans:
            ends = [
                (begin, begin + tensor.nbytes)
                for tensor in batch_sources
                if address <= (begin := tensor.data_ptr()) < address + size
            ]
            if ends:
                first, last = min(b for b, _ in ends), max(e for _, e in ends)
                file.release(max(first - address - _PAGES, 0), last - address)


# The page in which a batch begins was left by the batch before, which had not read all of it.
_PAGES = 1 << 16


def _batches(
    targets: Sequence[Tensor], sources: Sequence[Tensor]
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    to: list[Tensor] = []
    of: list[Tensor] = []
    held = 0
    for target, source in zip(targets, sources, strict=True):
        size = source.nbytes
        if size > _BATCH_BYTES and target.is_contiguous() and source.is_contiguous():
            step = _BATCH_BYTES // source.itemsize
            flat_target, flat_source = target.detach().view(-1), source.detach().view(-1)
            if to:
                yield to, of
                to, of, held = [], [], 0
            for begin in range(0, flat_source.numel(), step):
                yield [flat_target[begin : begin + step]], [flat_source[begin : begin + step]]
            continue
        to.append(target)
        of.append(source)
        held += size
        if held >= _BATCH_BYTES:
            yield to, of
            to, of, held = [], [], 0
    if to:
        yield to, of
