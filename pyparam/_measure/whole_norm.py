"""``total_norm`` and ``clip_grad_norm_`` of parameters that lie on several ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyparam._base.errors import named_errors
from pyparam._base.native import _C
from pyparam._measure.whole import empty_where_absent, gradients_of, on_host
from pyparam._parts.exchange import added, gathered, gathered_rows, minimum, ordered, unordered
from pyparam._parts.meeting import Meeting
from pyparam._parts.parts import Parts, Share, has_parts, parts_of
from pyparam._sources.table import ParamTable


def total_norm_whole(table: ParamTable, p: float, grad: bool) -> Tensor:
    """``total_norm`` of a table with DTensors among its entries: a plain tensor, the same on all ranks."""
    here = [True] * len(table)
    if grad:
        table, here = gradients_of(table)
    parts = parts_of("total_norm", table)
    with Meeting("total_norm", parts, (p, grad)):
        locals = empty_where_absent(parts, here)
        with named_errors(locals):
            norms = _C.tensor_norms(on_host(locals)._native, p)
        _check_order("total_norm", p)
    return _as_norm(_norm(parts, norms, p), parts.locals.tensors)


def clip_whole(table: ParamTable, max_norm: float, p: float, error_if_nonfinite: bool) -> Tensor:
    """``clip_grad_norm_`` of a table with DTensors among its entries."""
    table, here = gradients_of(table)
    parts = parts_of("clip_grad_norm_", table)
    with Meeting("clip_grad_norm_", parts, (max_norm, p, error_if_nonfinite)):
        own = [i for i, present in enumerate(here) if present]
        gradients = parts.locals._take(own)
        with named_errors(gradients):
            _C.check_clippable(gradients._native)
        locals = empty_where_absent(parts, here)
        with named_errors(locals):
            norms = _C.tensor_norms(on_host(locals)._native, p)
        _check_order("clip_grad_norm_", p)
    if p == 0:
        # As PyTorch has it: the number of gradients that are not all zero.
        found = minimum(parts.splits, -(norms[:, :1] != 0).long())
        norm = float(-found.sum())
    else:
        norm = _norm(parts, norms, p)
    out = _as_norm(norm, gradients.tensors or parts.locals.tensors)
    if error_if_nonfinite and not math.isfinite(out.item()):
        raise RuntimeError(_nonfinite(parts, locals, p))
    host = [i for i, tensor in enumerate(gradients.tensors) if tensor.is_cpu]
    _C.clip_to_norm(gradients._take(host)._native, out.cpu(), max_norm)
    if len(host) < len(gradients):
        factor = min(1.0, max_norm / (out.item() + 1e-6))
        torch._foreach_mul_([t for t in gradients.tensors if not t.is_cpu], factor)
    return out


def norm_over(group: Any, table: ParamTable, p: float, grad: bool) -> Tensor:
    """The norm of the parameters of all ranks of a group, each name once."""
    _check_order("total_norm", p)
    with Meeting("total_norm", None, (p, grad), group):
        names = table.names
        if grad:
            _, here = gradients_of(table)
            names = [name for name, present in zip(names, here, strict=True) if present]
    known: set[str] = set()
    for theirs in gathered(names, group)[: group.rank()]:
        known.update(theirs)
    own = table._take([i for i, name in enumerate(table.names) if name in set(names) - known])
    with named_errors(own):
        mine = total_norm_whole(own, p, grad) if has_parts(own) else _C.total_norm(own._native, p, grad)
    values = torch.tensor([mine.item()], dtype=torch.float64, device="cpu").view(torch.int64)
    norms = torch.cat(gathered_rows(values, group)).view(torch.float64)
    wide = mine.double() if any(gathered(mine.dtype == torch.float64, group)) else mine
    if p == 0:
        return wide.new_tensor(float(norms.sum()))
    return wide.new_tensor(float(torch.linalg.vector_norm(norms, p)))


def _norm(parts: Parts, norms: Tensor, p: float) -> float:
    """The p-norm of all wholes, from what each local tensor adds to it: float64 ``[rows, (sum, scale)]``."""
    # Parts with the same splits are one vector; in the end, so are all.
    kinds: dict[tuple[int, ...], int] = {}
    of_row = parts.of_rows(
        [kinds.setdefault(tuple(map(id, place.splits)), len(kinds)) for place in parts.kinds]
    )
    count = len(kinds)
    if count == 0:
        return 0.0
    shares = [
        Share(
            share.group,
            torch.tensor(
                [at for kind, at in kinds.items() if id(share.group) in kind], dtype=torch.int64, device="cpu"
            ),
        )
        for share in parts.splits
    ]
    sums, scales = norms.unbind(1)
    bad = ~torch.isfinite(sums)
    if math.isinf(p):
        sign = 1.0 if p > 0 else -1.0
        # NaN wins over every number: it is asked for apart.
        nan = torch.zeros(count, dtype=torch.int64, device="cpu").index_add_(0, of_row, sums.isnan().long())
        largest = torch.full((count,), -torch.inf, dtype=torch.float64, device="cpu")
        largest.scatter_reduce_(0, of_row, torch.where(sums.isnan(), -torch.inf, sign * sums), "amax")
        least = minimum(shares, torch.stack((ordered(-largest), -nan), 1))
        if bool((least[:, 1] < 0).any()):
            return math.nan
        found = float((-unordered(least[:, 0])).max()) * sign
        if len(parts) == 0:
            return 0.0
        return found if p < 0 or found > 0 else 0.0
    # The largest scale, and whether something is not finite, are the same on all ranks before they add.
    scale = torch.zeros(count, dtype=torch.float64, device="cpu")
    scale.scatter_reduce_(0, of_row, torch.where(sums == 0, 0.0, scales), "amax")
    nan = torch.zeros(count, dtype=torch.int64, device="cpu").index_add_(0, of_row, sums.isnan().long())
    infinite = torch.zeros(count, dtype=torch.int64, device="cpu").index_add_(0, of_row, sums.isinf().long())
    least = minimum(shares, torch.stack((ordered(-scale), -nan, -infinite), 1))
    if bool((least[:, 1] < 0).any()):
        return math.nan
    if bool((least[:, 2] < 0).any()):
        return math.inf
    top = float((-unordered(least[:, 0])).max())
    if top == 0:
        return 0.0
    # A scale of one kind of parts may be larger than another's; what they add up to is of the largest.
    of_kind = torch.where(least[:, 0] == 0, 1.0, -unordered(least[:, 0])).clamp(min=5e-324)
    shrunk = torch.where(bad | (sums == 0), 0.0, sums * (scales / of_kind[of_row]) ** p)
    exact = _C.ExactTable.summed(shrunk, of_row, count)
    windows = torch.tensor([[0, -_C.EXACT_LIMBS]], dtype=torch.int64, device="cpu").repeat(count, 1)
    limbs, per_row = exact.packed(windows)
    limbs = added(shares, [(limbs, per_row)])[0]
    together = _C.ExactTable.unpacked(windows, limbs).rounded().flatten()
    if p in (0.0, 1.0):
        return float(together.sum())
    total = float((together * (of_kind / top) ** p).sum())
    return top * (math.sqrt(total) if p == 2 else total ** (1 / p))


def _as_norm(norm: float, tensors: Sequence[Tensor]) -> Tensor:
    """As ``total_norm`` returns it: float64 where a tensor is, else float32, where the tensors are."""
    wide = any(t.dtype in (torch.float64, torch.complex128) for t in tensors)
    devices = [t.device for t in tensors if not t.is_cpu] or [torch.device("cpu")]
    return torch.tensor(norm, dtype=torch.float64 if wide else torch.float32, device=devices[0])


def _check_order(verb: str, p: float) -> None:
    if not (p >= 0 or p == -math.inf):
        raise ValueError(f"{verb}: the order of the norm must be 0, positive, inf or -inf, got {p}")


def _nonfinite(parts: Parts, locals: ParamTable, p: float) -> str:
    largest = _C.tensor_norms(on_host(locals)._native, math.inf)[:, :1]
    bad = minimum(parts.splits, -(~torch.isfinite(largest)).long())
    rows = bad.flatten().nonzero().flatten().tolist()
    cause = (
        f"the first gradient with a NaN or an infinity is that of parameter {parts.table.names[rows[0]]!r}"
        if rows
        else "no gradient has a NaN or an infinity, but their norm overflows"
    )
    return (
        f"The total norm of order {p:g} for gradients from `parameters` is non-finite, so it cannot be "
        f"clipped: {cause}. To disable this error and scale the gradients by the non-finite norm anyway, set "
        "`error_if_nonfinite=False`"
    )
