"""``fingerprint`` of parameters that lie on several ranks: the sums of the words of each part add up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyparam._base.errors import named_errors
from pyparam._base.native import _C
from pyparam._parts.exchange import added, gathered, gathered_rows, minimum
from pyparam._parts.meeting import Meeting
from pyparam._parts.parts import Parts, Share, parts_of
from pyparam._sources.table import ParamTable

Diverged = list[tuple[str, tuple[int, ...]]]


def digests_of(table: ParamTable, group: Any) -> tuple[Tensor, Diverged]:
    """The digests of the wholes (int64 ``[rows, 2]``), and which parameters are not the same on the ranks
    that should repeat them: those of DTensors' replicated dimensions, and with ``group`` its ranks."""
    parts = parts_of("fingerprint", table)
    with Meeting("fingerprint", parts, group=group):
        locals = parts.locals
        if any(t.is_cuda for t in locals.tensors):
            locals = ParamTable(locals.names, [t.detach().cpu() for t in locals.tensors])
        with named_errors(locals):
            sums, pieces, lengths = _C.hash_parts(locals._native, parts.cuts, parts.kind_of)
    repeats = list(parts.repeats)
    plain = parts.of_rows([not place.ranks for place in parts.kinds]).nonzero().flatten()
    if group is not None:
        _same_names(table, group)
        repeats.append(Share(group, plain))
    # Two sums that some ranks repeat are the same where their least and their greatest are.
    own = torch.cat((sums, _folded(pieces, lengths)), 1)
    least = minimum(repeats, torch.cat((own, ~own), 1))
    apart = (
        (least[:, :3] != ~least[:, 3:]).any(1)
        if repeats
        else torch.zeros(len(parts), dtype=torch.bool, device="cpu")
    )
    cells = added(parts.splits, [(sums.flatten(), 2), (pieces, lengths), (apart.long(), 1)])
    digests = _C.digests_of_parts(locals._native, parts.cuts, parts.kind_of, cells[0], cells[1])
    rows = cells[2].nonzero().flatten()
    return digests, _diverged(parts, repeats, rows, own) if repeats else []


def _folded(pieces: Tensor, lengths: Tensor) -> Tensor:
    """One number for the pieces of words of each row (int64 ``[rows, 1]``)."""
    row = torch.arange(len(lengths), device="cpu").repeat_interleave(lengths)
    place = torch.arange(len(pieces), device="cpu") * 2 + 1
    out = torch.zeros(len(lengths), dtype=torch.int64, device="cpu").index_add_(0, row, pieces * place)
    return out.unsqueeze(1)


def _same_names(table: ParamTable, group: Any) -> None:
    names = gathered(table.names, group)
    if any(theirs != names[0] for theirs in names):
        raise ValueError("fingerprint: the ranks of the group have parameters of different names")


def _diverged(parts: Parts, repeats: Sequence[Share], rows: Tensor, own: Tensor) -> Diverged:
    """The ranks that hold something else than most of those that repeat them.

    ``rows`` are the parameters that differ somewhere, the same on all ranks of the groups of each.
    """
    import torch.distributed as dist

    found: Diverged = []
    names = parts.table.names
    for row in rows.tolist():
        place = parts.place(row)
        groups = [*place.splits, *(share.group for share in repeats if bool((share.rows == row).any()))]
        mine = torch.cat(
            (torch.tensor([dist.get_rank(), _hash(place.offsets)], dtype=torch.int64, device="cpu"), own[row])
        ).unsqueeze(0)
        for group in groups:
            mine = torch.cat(gathered_rows(mine, group))
        by_part: dict[int, dict[tuple[int, ...], set[int]]] = {}
        for rank, part, *value in mine.tolist():
            by_part.setdefault(part, {}).setdefault(tuple(value), set()).add(rank)
        odd: set[int] = set()
        for values in by_part.values():
            most = max(values.values(), key=lambda ranks: (len(ranks), -min(ranks)))
            odd.update(rank for ranks in values.values() if ranks is not most for rank in ranks)
        found.append((names[row], tuple(sorted(odd))))
    return found


def _hash(offsets: Sequence[int]) -> int:
    out = 0
    for offset in offsets:
        out = (out * 1_000_003 + offset) % 2**62
    return out
