"""``compare`` of what is put together or dequantized: some values in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pyparam._base.batches import batches
from pyparam._compare.comparison import COUNTS, VALUES
from pyparam._compare.matching import matched
from pyparam._share.readable import unreadable_in
from pyparam._sources.stand_in import Untold, is_stand_in, value_of
from pyparam._sources.table import ParamTable

BATCH = 128 << 20
"""Bytes of values that are made at a time, or one pair, if that is more."""

Reading: TypeAlias = "tuple[tuple[ParamTable, ParamTable], dict[str, Any], dict[str, str]]"


def read_in_batches(
    a: ParamTable, b: ParamTable, read: Callable[[ParamTable, ParamTable], Reading]
) -> Reading:
    """What ``read`` gives of two tables, where stand-ins are asked for their values a batch at a time."""
    unread = unreadable_in(b) | unreadable_in(a)
    pairs = matched(a, b, unread)
    rows_of = list(zip(pairs["in_a"].tolist(), pairs["in_b"].tolist(), strict=True))
    tensors = a.tensors, b.tensors
    names = a.names
    row_of = {names[i]: row for row, (i, _) in enumerate(rows_of)}
    values = torch.zeros(len(rows_of), len(VALUES), dtype=torch.float64, device="cpu")
    counts = torch.zeros(len(rows_of), len(COUNTS), dtype=torch.int64, device="cpu")
    sizes = (_made_bytes(tensors[0][i]) + _made_bytes(tensors[1][j]) for i, j in rows_of)
    for rows in batches(sizes, BATCH):
        own = {names[i]: (tensors[0][i], tensors[1][j]) for i, j in rows_of[rows.start : rows.stop]}
        found, refused = _batch_read(own, read)
        unread |= refused
        for name, (of_values, of_counts) in found.items():
            values[row_of[name]], counts[row_of[name]] = of_values, of_counts
    kept = torch.tensor(
        [row for name, row in row_of.items() if name not in unread], dtype=torch.int64, device="cpu"
    )
    left_a, left_b = (t._take([i for i, name in enumerate(t.names) if name not in unread]) for t in (a, b))
    pairs = matched(left_a, left_b, ())
    return (left_a, left_b), {**pairs, "values": values[kept], "counts": counts[kept]}, unread


def _batch_read(
    pairs: dict[str, tuple[Tensor, Tensor]], read: Callable[[ParamTable, ParamTable], Reading]
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, str]]:
    """The figures of pairs by name, and the reasons of those without; their values are let go of."""
    one: dict[str, Tensor] = {}
    other: dict[str, Tensor] = {}
    unread: dict[str, str] = {}
    for name, (a, b) in pairs.items():
        try:
            one[name], other[name] = value_of(a), value_of(b)
        except Untold as error:
            one.pop(name, None)
            unread[name] = str(error)
    (table, _), found, refused = read(_table(one), _table(other))
    figures = zip(found["values"].cpu(), found["counts"].cpu(), strict=True)
    return dict(zip([table.names[i] for i in found["in_a"].tolist()], figures, strict=True)), unread | refused


def _made_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.dtype.itemsize if is_stand_in(tensor) else 0


def _table(tensors: dict[str, Tensor]) -> ParamTable:
    return ParamTable(list(tensors), list(tensors.values()))
