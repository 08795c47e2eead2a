"""Rows of a large matrix that are the same bits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pyparam._base.words import plural
from pyparam._findings.families import TABLE, WEIGHT
from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey

_LARGE = 1024
_WIDE = 8
_PROBES = 8
_BLOCK = 1 << 22
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Pixel shuffles start with every filter several times over, so that the first images have no checkerboard.
_SHUFFLE = re.compile(r"up_?sampl|shuffle|up_?scal", re.I)


class Repeats(NamedTuple):
    """``rows`` of a matrix are copies of another; ``first`` and ``second`` are two that are the same."""

    rows: int
    first: int
    second: int


def repeated(seen: Survey) -> Iterator[Finding]:
    """Rows that are the same bits, zeros left out: units that never part, or entries that are one.

    In tables of embeddings unused entries often share a row, which is information.
    """
    numel = seen.figure("numel")
    sizes_of = seen.layouts.each(lambda kind: (kind.sizes or (0,))[0])
    wide = (sizes_of >= 2) & (numel >= _LARGE) & (numel // sizes_of.clamp(min=1) >= _WIDE)
    varies = seen.figure("min") < seen.figure("max")
    faults: dict[bool, list[int]] = {True: [], False: []}
    details: dict[str, str] = {}
    for row in seen.those(seen.weighty & seen.matrices & wide & varies):
        sizes = seen.sizes(row)
        found = repeats(seen.values(row))
        if found is None:
            continue
        name = seen.names[row]
        if WEIGHT.search(name) is None and found.rows == sizes[0] - 1:
            continue  # one row for all of what is no layer's weight: spread over its rows, as Mamba's A
        faults[_is_table(name)].append(row)
        details[name] = (
            f"{plural(found.rows, 'row')} of {sizes[0]:,} {'copies' if found.rows == 1 else 'copy'} another: "
            f"row {found.second:,} is row {found.first:,}"
        )
    if faults[False]:
        rows = faults[False]
        yield Finding(
            "duplicate-rows",
            "warning",
            f"{plural(len(rows), 'matrix', 'matrices')} {'has' if len(rows) == 1 else 'have'} rows that are "
            f"the same",
            "Output units with the same weights compute the same; with the same bias and what follows "
            "alike, they "
            "get the same gradient and never part.",
            seen.take(rows),
            {name: details[name] for name in seen.take(rows)},
            "Draw one of them again, or drop it.",
        )
    if faults[True]:
        rows = faults[True]
        yield Finding(
            "duplicate-rows",
            "info",
            f"{plural(len(rows), 'table')} {'has' if len(rows) == 1 else 'have'} entries that are the same",
            "Entries that no training touched keep what they were filled with, and padding often is one row.",
            seen.take(rows),
            {name: details[name] for name in seen.take(rows)},
            "Nothing, unless all entries are used.",
        )


def _is_table(name: str) -> bool:
    return bool(TABLE.search(name) or _SHUFFLE.search(name))


def repeats(matrix: Tensor) -> Repeats | None:
    """Rows of a matrix, its dimensions behind the first taken as one, that are the same bits as another.

    Looks at a few columns of all rows first, and at whole rows of only those that agree there. Rows of zeros
    are left out.
    """
    bits = bits_of(matrix)
    width = bits.shape[1]
    probes = torch.tensor(
        sorted({i * (width - 1) // (_PROBES - 1) for i in range(_PROBES)}), dtype=torch.int64, device="cpu"
    )
    keys = _hashed(bits[:, probes.to(bits.device)])
    rows = _shared(keys).nonzero().flatten()
    if len(rows) < 2:
        return None
    whole = []
    step = max(1, _BLOCK // width)
    zero = []
    for block in _blocks(rows, step):
        part = bits[block.to(bits.device)]
        zero.append(_is_zero(part).cpu())
        whole.append(_hashed(part))
    kept = ~torch.cat(zero)
    rows, keys = rows[kept], torch.cat(whole)[kept]
    # The first row of each key; equal keys are compared to it bit for bit.
    order = keys.sort(stable=True)
    rows, keys = rows[order.indices], order.values
    starts = torch.ones(len(keys), dtype=torch.bool, device="cpu")
    starts[1:] = keys[1:] != keys[:-1]
    group = starts.cumsum(0) - 1
    first = rows[starts][group] if len(rows) else rows
    pairs = (~starts).nonzero().flatten()
    count, example = 0, None
    for block in _blocks(pairs, step):
        left, right = first[block], rows[block]
        same = (bits[left.to(bits.device)] == bits[right.to(bits.device)]).all(1).cpu()
        count += int(same.sum())
        if example is None and bool(same.any()):
            at = int(same.nonzero()[0])
            example = int(left[at]), int(right[at])
    return None if example is None else Repeats(count, *example)


def bits_of(matrix: Tensor) -> Tensor:
    """Integers of the same bits, two-dimensional, without a copy where strides allow."""
    plain = matrix.resolve_conj().resolve_neg()
    if plain.is_complex():
        plain = torch.view_as_real(plain)
    flat = plain.reshape(plain.shape[0], -1)
    return flat.view(_INTEGERS[flat.element_size()])


def _is_zero(bits: Tensor) -> Tensor:
    """Rows without a value but zero: minus zero has its sign alone."""
    sign = torch.iinfo(bits.dtype).min
    return ((bits == 0) | (bits == sign)).all(1)


def _hashed(bits: Tensor) -> Tensor:
    """A 64-bit number for each row: sums modulo 2**64 of words times fixed odd numbers."""
    width = bits.shape[1]
    random = torch.Generator().manual_seed(0x9E3779B9)
    factors = (
        torch.randint(-(2**63), 2**63 - 1, (width,), generator=random, dtype=torch.int64, device="cpu") | 1
    )
    keys = (bits.long() * factors.to(bits.device)).sum(1)
    return keys.cpu()


def _shared(keys: Tensor) -> Tensor:
    """Whether a key stands more than once."""
    ordered, places = keys.sort()
    same = ordered[1:] == ordered[:-1]
    shared = torch.zeros(len(keys), dtype=torch.bool, device="cpu")
    shared[places[1:][same]] = True
    shared[places[:-1][same]] = True
    return shared


def _blocks(rows: Tensor, step: int) -> Iterator[Tensor]:
    return (rows[begin : begin + step] for begin in range(0, len(rows), step))
