"""The collectives: one minimum and one sum a process group, for all its parameters together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pyparam._parts.parts import Share


def minimum(shares: Sequence[Share], rows: Tensor) -> Tensor:
    """The least of what the ranks have in each cell of int64 ``[rows, columns]``."""
    out = rows.clone()
    for share in shares:
        if len(share.rows) == len(rows):
            out = _reduced(out, dist.ReduceOp.MIN, share.group)
        else:
            out[share.rows] = _reduced(out[share.rows], dist.ReduceOp.MIN, share.group)
    return out


def added(shares: Sequence[Share], columns: Sequence[tuple[Tensor, Tensor | int]]) -> list[Tensor]:
    """The sums over the ranks of int64 vectors that have some cells for each row: as many for each, or how
    many each has (int64 ``[rows]``, the same on all ranks)."""
    return _added(shares, columns, torch.zeros(0, dtype=torch.int64, device="cpu"))[0]


def added_and_told(
    shares: Sequence[Share], columns: Sequence[tuple[Tensor, Tensor | int]], told: bool
) -> tuple[list[Tensor], list[Share]]:
    """``added``, and the shares in which some rank tells the others something: that it was told so itself, or
    has heard it in an earlier share. All ranks of a share come to the same, for one more cell."""
    flag = torch.tensor([int(told)], dtype=torch.int64, device="cpu")
    sums, heard = _added(shares, columns, flag)
    return sums, [share for share, count in zip(shares, heard, strict=True) if int(count) > 0]


def _added(
    shares: Sequence[Share], columns: Sequence[tuple[Tensor, Tensor | int]], beside: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Cells beside the rows' are in every share's sum, and what they are after it comes back for each."""
    lengths = [len(column) for column, _ in columns]
    flat = torch.cat([*(column for column, _ in columns), beside])
    own = torch.ones(len(beside), dtype=torch.bool, device="cpu")
    after = []
    for share in shares:
        cells = torch.cat([*(_cells(share.rows, len(column), per_row) for column, per_row in columns), own])
        if bool(cells.all()):
            flat = _reduced(flat, dist.ReduceOp.SUM, share.group)
        else:
            flat[cells] = _reduced(flat[cells], dist.ReduceOp.SUM, share.group)
        after.append(flat[len(flat) - len(beside) :].clone())
    return list(torch.split(flat[: sum(lengths)], lengths)), after


def _cells(rows: Tensor, size: int, per_row: Tensor | int) -> Tensor:
    """Which cells of a vector belong to some rows."""
    count = size // per_row if isinstance(per_row, int) and per_row else 0
    if not isinstance(per_row, int):
        count = len(per_row)
    chosen = torch.zeros(count, dtype=torch.bool, device="cpu")
    chosen[rows] = count > 0
    if isinstance(per_row, int):
        return chosen.repeat_interleave(per_row)
    return chosen.repeat_interleave(per_row)


def _reduced(payload: Tensor, op: Any, group: Any) -> Tensor:
    """On the group's own device; integers come to the same bits on every rank."""
    if payload.numel() == 0:
        return payload
    there = payload.contiguous().to(device_of(group))
    dist.all_reduce(there, op=op, group=group)
    return there.cpu()


def gathered(value: Any, group: Any) -> list[Any]:
    """What all ranks of a group have, by their order in it."""
    out: list[Any] = [None] * group.size()
    dist.all_gather_object(out, value, group=group)
    return out


def gathered_rows(rows: Tensor, group: Any) -> list[Tensor]:
    """int64 tensors of one shape of all ranks."""
    there = rows.contiguous().to(device_of(group))
    out = [torch.empty_like(there) for _ in range(group.size())]
    dist.all_gather(out, there, group=group)
    return [tensor.cpu() for tensor in out]


def device_of(group: Any) -> torch.device:
    """Where the group's backend can reduce: in host memory if it can, else on this rank's device."""
    devices = group._device_types
    if any(device.type == "cpu" for device in devices):
        return torch.device("cpu")
    kind = devices[0].type
    return torch.device(kind, torch.get_device_module(kind).current_device())


def ordered(values: Tensor) -> Tensor:
    """float64 as int64 of the same order; -0.0 before 0.0."""
    bits = values.view(torch.int64)
    return torch.where(bits < 0, bits ^ (2**63 - 1), bits)


def unordered(keys: Tensor) -> Tensor:
    """The float64 of such keys."""
    return torch.where(keys < 0, keys ^ (2**63 - 1), keys).view(torch.float64)
