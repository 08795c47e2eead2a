"""``fingerprint`` of parameters that lie on several ranks: the sums of the words of each part add up."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pyparam._base.errors import named_errors
from pyparam._base.native import _C
from pyparam._parts.exchange import added_and_told, gathered_rows, minimum
from pyparam._parts.meeting import Meeting
from pyparam._parts.parts import Parts, Share, parts_of
from pyparam._sources.table import ParamTable

Diverged = list[tuple[str, tuple[int, ...]]]


def digests_of(table: ParamTable, group: Any) -> tuple[Tensor, Diverged]:
    """The digests of the wholes (int64 ``[rows, 2]``), and which parameters are not the same on the ranks
    that should repeat them: those of DTensors' replicated dimensions, and with ``group`` its ranks."""
    parts = parts_of("fingerprint", table, tells=True)
    plain = parts.of_rows([not place.ranks for place in parts.kinds]).nonzero().flatten()
    # The ranks of a group hold ordinary tensors of the same names; they may differ in all else.
    alike = None if group is None else (_hashed(table.names), plain.tolist())
    with Meeting("fingerprint", parts, alike, group):
        locals = parts.locals
        if any(t.is_cuda for t in locals.tensors):
            locals = ParamTable(locals.names, [t.detach().cpu() for t in locals.tensors])
        with named_errors(locals):
            sums, pieces, lengths = _C.hash_parts(locals._native, parts.cuts, parts.kind_of)
    repeats = list(parts.repeats)
    if group is not None:
        repeats.append(Share(group, plain))
    flat = sums.flatten()
    apart = torch.zeros(len(parts), dtype=torch.bool, device="cpu")
    own = torch.zeros((len(parts), 1), dtype=torch.int64, device="cpu")
    if repeats:
        # Half a digest of what lies here: it is the same on all ranks where its least and its greatest are.
        own = _C.digests_of_parts(locals._native, parts.cuts, parts.kind_of, flat, pieces)[:, :1]
        least = minimum(repeats, torch.cat((own, ~own), 1))
        apart = least[:, 0] != ~least[:, 1]
    (flat, pieces), heard = added_and_told(parts.splits, [(flat, 2), (pieces, lengths)], bool(apart.any()))
    digests = _C.digests_of_parts(locals._native, parts.cuts, parts.kind_of, flat, pieces)
    if not repeats:
        return digests, []
    # Which they are is told where something is: the ranks that hold the other parts have not seen it.
    rows = -minimum(heard, -apart.long().unsqueeze(1)).flatten()
    return digests, _diverged(parts, repeats, rows.nonzero().flatten(), own)


def _hashed(names: Sequence[str]) -> str:
    return hashlib.blake2b("\0".join(names).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _diverged(parts: Parts, repeats: Sequence[Share], rows: Tensor, own: Tensor) -> Diverged:
    """The ranks that hold something else than most of those that repeat them.

    ``rows`` are the parameters that differ somewhere, the same on all ranks of the groups of each.
    """
    here = {id(share): set(share.rows.tolist()) for share in repeats}
    by_groups: dict[tuple[Any, ...], list[int]] = {}
    for row in rows.tolist():
        beside = (share.group for share in repeats if row in here[id(share)])
        by_groups.setdefault((*parts.place(row).splits, *beside), []).append(row)
    odd: dict[int, tuple[int, ...]] = {}
    for groups, chosen in by_groups.items():
        # Rows by ranks by (rank, part, value): what a group has is beside what the next one adds.
        parts_of_rows = [_hash(parts.place(row).offsets) for row in chosen]
        ranks = torch.full((len(chosen),), dist.get_rank(), dtype=torch.int64, device="cpu")
        held = torch.stack(
            (ranks, torch.tensor(parts_of_rows, dtype=torch.int64, device="cpu"), own[chosen, 0]), 1
        ).unsqueeze(1)
        for group in groups:
            held = torch.cat(gathered_rows(held, group), 1)
        odd.update(zip(chosen, map(_odd, held.tolist()), strict=True))
    names = parts.table.names
    return [(names[row], odd[row]) for row in rows.tolist()]


def _odd(held: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The ranks of which most of those that have the same part hold another value."""
    by_part: dict[int, dict[int, set[int]]] = {}
    for rank, part, value in held:
        by_part.setdefault(part, {}).setdefault(value, set()).add(rank)
    odd: set[int] = set()
    for values in by_part.values():
        most = max(values.values(), key=lambda ranks: (len(ranks), -min(ranks)))
        odd.update(rank for ranks in values.values() if ranks is not most for rank in ranks)
    return tuple(sorted(odd))


def _hash(offsets: Sequence[int]) -> int:
    out = 0
    for offset in offsets:
        out = (out * 1_000_003 + offset) % 2**62
    return out
