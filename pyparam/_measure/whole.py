"""``measure`` of parameters that lie on several ranks: each measures its parts, and sums make wholes.

Counts, extremes and bins are integers or are exchanged as such, and sums are exact
(csrc/kernels/exact.h): so a row has the same bits on every rank, however the parameter is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyparam._base.errors import named_errors
from pyparam._base.native import _C
from pyparam._measure.bins import Bins
from pyparam._measure.columns import Columns
from pyparam._measure.rows import PickedLayouts, Where
from pyparam._measure.stats import Stats
from pyparam._measure.whole_bins import Windows
from pyparam._parts.exchange import added, minimum, ordered, unordered
from pyparam._parts.meeting import Meeting
from pyparam._parts.parts import Parts, parts_of
from pyparam._share.ties import tie_sets
from pyparam._sources.table import ParamTable

_COUNTS = 8  # columns of counts (csrc/kernels/measure.h)
_NUMEL, _NANS, _POSINFS, _NEGINFS, _FINITE = 0, 3, 4, 5, 7
_NOWHERE = 2**63 - 1
_RANK_BITS = 20


class Gradients(NamedTuple):
    """A table of the gradients, and which of them this rank has: elsewhere the parameter stands in."""

    table: ParamTable
    here: list[bool]


def gradients_of(table: ParamTable) -> Gradients:
    tensors = table.tensors
    found = [None if t.requires_grad and not t.is_leaf and not t.retains_grad else t.grad for t in tensors]
    here = [gradient is not None for gradient in found]
    chosen = [t if g is None else g for t, g in zip(tensors, found, strict=True)]
    return Gradients(ParamTable(table.names, chosen), here)


def empty_where_absent(parts: Parts, here: Sequence[bool]) -> ParamTable:
    """The local tensors, without elements where there is no gradient."""
    if all(here):
        return parts.locals
    locals = [
        tensor if present else tensor.detach().new_empty(0)
        for tensor, present in zip(parts.locals.tensors, here, strict=True)
    ]
    return ParamTable(parts.locals.names, locals)


def local_entries(table: ParamTable, grad: bool) -> ParamTable:
    """This rank's parts of the parameters, or of the gradients that are there."""
    if not grad:
        return parts_of("measure", table).locals
    table, here = gradients_of(table)
    return parts_of("measure", table._take([i for i, present in enumerate(here) if present])).locals


def measure_whole(table: ParamTable, grad: bool, histogram: bool, points: tuple[float, ...]) -> Stats:
    """``measure`` of a table with DTensors among its entries."""
    here = [True] * len(table)
    if grad:
        table, here = gradients_of(table)
    parts = parts_of("measure", table, tells=True)
    with Meeting("measure", parts, (grad, histogram)):
        own = _Own(parts, empty_where_absent(parts, here), here, histogram)
    return _united(parts, own, points)


class _Own:
    """What this rank measures of its parts."""

    def __init__(self, parts: Parts, locals: ParamTable, here: Sequence[bool], histogram: bool) -> None:
        locals = on_host(locals)
        with named_errors(locals):
            values, self.counts, bins, self.sums = _C.measure_parts(locals._native, histogram)
        self.counts = self.counts[:-1].contiguous()
        self.bins = None if bins is None else Bins(*bins)
        nothing = self.counts[:, _FINITE] == 0
        least = torch.where(nothing, torch.inf, values[:-1, 0])
        greatest = torch.where(nothing, -torch.inf, values[:-1, 1])
        self.extremes = torch.stack((ordered(least), ordered(-greatest)), 1)
        self.first = torch.full((len(locals),), _NOWHERE, dtype=torch.int64, device="cpu")
        bad = self.counts[:, [_NANS, _POSINFS, _NEGINFS]].sum(1)
        for row in bad.nonzero().flatten().tolist():
            at = parts.place(row).flat(_first_nonfinite(locals[row]))
            self.first[row] = at << _RANK_BITS | _rank()
        # Tied entries count once in the total; a rank whose parts are empty does not see them.
        layout = tie_sets(locals).layout
        own = torch.arange(len(locals), device="cpu")
        self.leaders = torch.where(self.counts[:, _NUMEL] > 0, layout, own)
        self.absent = torch.tensor([not present for present in here], dtype=torch.int64, device="cpu")


def _united(parts: Parts, own: _Own, points: tuple[float, ...]) -> Stats:
    windows = own.sums.windows()
    columns = [
        own.extremes,
        own.leaders.unsqueeze(1),
        own.absent.unsqueeze(1),
        own.first.unsqueeze(1),
        windows,
    ]
    bins = None if own.bins is None else Windows(own.bins)
    if bins is not None:
        columns.append(bins.reach)
    united = minimum(parts.splits, torch.cat(columns, 1))
    least = torch.split(united, [c.shape[1] for c in columns], 1)
    extremes, leaders, absent, first = least[0], least[1].squeeze(1), least[2].squeeze(1), least[3]
    windows = least[4].contiguous()
    limbs, per_row = own.sums.packed(windows)
    payload: list[tuple[Tensor, Tensor | int]] = [(own.counts.flatten(), _COUNTS), (limbs, per_row)]
    if bins is not None:
        payload += bins.packed(least[5])
    sums = added(parts.splits, payload)
    counts = sums[0].view(-1, _COUNTS)
    counted = (leaders == torch.arange(len(parts), device="cpu")) & (absent == 0)
    span = torch.stack((unordered(extremes[:, 0]), -unordered(extremes[:, 1])), 1)
    exact = _C.ExactTable.unpacked(windows, sums[1])
    values, all_counts = _C.statistics_of(exact, counts.contiguous(), span.contiguous(), counted)
    found = Columns(values, all_counts, None if bins is None else bins.unpacked(sums[2:], counted))
    names = parts.table.names
    stats = Stats(
        names=list(names),
        columns=found,
        layouts=_C.layouts(parts.table._native),
        points=points,
        missing=[names[i] for i in absent.nonzero().flatten().tolist()],
        shared=_shared(names, leaders),
        places=_places(parts, first.flatten()),
    )
    if bool(absent.any()):
        kept = (absent == 0).nonzero().flatten().tolist()
        stats = stats._take(kept)
        stats._layouts = PickedLayouts(_C.layouts(parts.table._native), (), kept)  # type: ignore[arg-type]
    return stats


def _shared(names: Sequence[str], leaders: Tensor) -> dict[str, str]:
    followers = (leaders != torch.arange(len(leaders), device="cpu")).nonzero().flatten()
    groups: dict[int, list[int]] = {}
    for i, leader in zip(followers.tolist(), leaders[followers].tolist(), strict=True):
        groups.setdefault(leader, [leader]).append(i)
    return {names[i]: names[first] for first, rows in sorted(groups.items()) for i in rows}


def _places(parts: Parts, first: Tensor) -> dict[str, Where]:
    out = {}
    for i in (first != _NOWHERE).nonzero().flatten().tolist():
        key = int(first[i])
        flat, rank = key >> _RANK_BITS, key & ((1 << _RANK_BITS) - 1)
        out[parts.table.names[i]] = Where(unravelled(flat, parts.place(i).whole), rank)
    return out


def unravelled(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    index = []
    for size in reversed(shape):
        flat, at = divmod(flat, size)
        index.append(at)
    return tuple(reversed(index))


def _first_nonfinite(tensor: Tensor) -> int:
    if tensor.dtype.itemsize == 1:
        tensor = tensor.float()
    return int((~torch.isfinite(tensor.detach())).flatten().nonzero()[0])


def on_host(table: ParamTable) -> ParamTable:
    """The table with what lies on a device brought to host memory, where sums are exact."""
    tensors = table.tensors
    if all(not t.is_cuda for t in tensors):
        return table
    return ParamTable(table.names, [t.detach().cpu() for t in tensors])


def _rank() -> int:
    import torch.distributed as dist

    return dist.get_rank()


__all__: list[Any] = ["Gradients", "gradients_of", "measure_whole", "on_host"]
