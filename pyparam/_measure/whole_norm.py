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
from pyparam._parts.exchange import added_and_told, gathered, minimum, ordered, unordered
from pyparam._parts.meeting import Meeting
from pyparam._parts.parts import Parts, Share, parts_of
from pyparam._sources.table import ParamTable


def total_norm_whole(table: ParamTable, p: float, grad: bool) -> Tensor:
    """``total_norm`` of a table with DTensors among its entries: a plain tensor, the same on all ranks."""
    here = [True] * len(table)
    if grad:
        table, here = gradients_of(table)
    parts = parts_of("total_norm", table, tells=True)
    with Meeting("total_norm", parts, (p, grad)):
        locals = empty_where_absent(parts, here)
        with named_errors(locals):
            norms = _C.tensor_norms(on_host(locals)._native, p)
        _check_order("total_norm", p)
    return _as_norm(_norm(parts, norms, p)[0], parts.locals.tensors)


def clip_whole(table: ParamTable, max_norm: float, p: float, error_if_nonfinite: bool) -> Tensor:
    """``clip_grad_norm_`` of a table with DTensors among its entries."""
    table, here = gradients_of(table)
    parts = parts_of("clip_grad_norm_", table, tells=True)
    with Meeting("clip_grad_norm_", parts, (max_norm, p, error_if_nonfinite)):
        own = [i for i, present in enumerate(here) if present]
        gradients = parts.locals._take(own)
        with named_errors(gradients):
            _C.check_clippable(gradients._native)
        locals = empty_where_absent(parts, here)
        with named_errors(locals):
            norms = _C.tensor_norms(on_host(locals)._native, p)
        _check_order("clip_grad_norm_", p)
    heard: list[Share] = []
    if p == 0:
        # As PyTorch has it: the number of gradients that are not all zero.
        found = minimum(parts.splits, -(norms[:, :1] != 0).long())
        norm = float(-found.sum())
    else:
        norm, heard = _norm(parts, norms, p)
    out = _as_norm(norm, gradients.tensors or parts.locals.tensors)
    # A gradient that is no DTensor may be infinite on one rank alone: the others have heard of it.
    if error_if_nonfinite and (heard or not math.isfinite(out.item())):
        raise RuntimeError(_nonfinite(parts, heard, locals, p))
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
        here = [True] * len(table)
        if grad:
            table, here = gradients_of(table)
        rows = _norms_of_rows(table, here, p)
    kept = [table.tensors[row] for row in rows]
    wide = any(t.dtype in (torch.float64, torch.complex128) for t in kept)
    mine = [(table.names[row], norm) for row, norm in rows.items()]
    first: dict[str, float] = {}
    for theirs, wider in gathered((mine, wide), group):
        wide = wide or wider
        for name, norm in theirs:
            first.setdefault(name, norm)
    norms = torch.tensor(list(first.values()), dtype=torch.float64, device="cpu")
    total = norms.sum() if p == 0 or not len(norms) else torch.linalg.vector_norm(norms, p)
    out = _as_norm(float(total), kept)
    return out.double() if wide else out


def _norms_of_rows(table: ParamTable, here: Sequence[bool], p: float) -> dict[int, float]:
    """The p-norm of each entry's whole, by its row; those of DTensors, of all ranks that hold them. Without
    what has no gradient here and is no DTensor."""
    parts = parts_of("total_norm", table, tells=True)
    with Meeting("total_norm", parts, ("rows", p)):
        locals = empty_where_absent(parts, here)
        with named_errors(locals):
            norms = _C.tensor_norms(on_host(locals)._native, p)
    rows = torch.arange(len(parts), device="cpu")
    sums, scales, _ = _united(parts.splits, norms, p, rows, len(parts))
    if math.isinf(p):
        sums = sums.clamp(min=0)
    elif p not in (0.0, 1.0):
        sums = scales * (sums.sqrt() if p == 2 else sums ** (1 / p))
    return {row: norm for row, norm in enumerate(sums.tolist()) if here[row] or parts.place(row).ranks}


def _norm(parts: Parts, norms: Tensor, p: float) -> tuple[float, list[Share]]:
    """The p-norm of all wholes, from what each local tensor adds to it: float64 ``[rows, (sum, scale)]``. And
    the groups in which some rank has a value that is not finite."""
    # Parts with the same splits are one vector; in the end, so are all.
    kinds: dict[tuple[int, ...], int] = {}
    of_row = parts.of_rows(
        [kinds.setdefault(tuple(map(id, place.splits)), len(kinds)) for place in parts.kinds]
    )
    if not kinds:
        return 0.0, []
    members = [[at for kind, at in kinds.items() if id(share.group) in kind] for share in parts.splits]
    shares = [
        Share(share.group, torch.tensor(chosen, dtype=torch.int64, device="cpu"))
        for share, chosen in zip(parts.splits, members, strict=True)
    ]
    sums, scales, heard = _united(shares, norms, p, of_row, len(kinds))
    if bool(sums.isnan().any()):
        return math.nan, heard
    if math.isinf(p):
        sign = math.copysign(1.0, p)
        found = float((sign * sums).max()) * sign if len(parts) else 0.0
        return (found if p < 0 or found > 0 else 0.0), heard
    top = float(scales.max())
    if bool(sums.isinf().any()):
        return math.inf, heard
    if top == 0:
        return 0.0, heard
    if p in (0.0, 1.0):
        return float(sums.sum()), heard
    # One kind's scale may be larger than another's; what they add up to is of the largest.
    total = float((sums * (scales / top) ** p).sum())
    return top * (math.sqrt(total) if p == 2 else total ** (1 / p)), heard


def _united(
    shares: Sequence[Share], norms: Tensor, p: float, of_row: Tensor, count: int
) -> tuple[Tensor, Tensor, list[Share]]:
    """What ``count`` vectors on several ranks come to, where row i is a piece of vector ``of_row[i]``: sums
    and scales (float64 ``[count]`` each; of an infinite order the extremes), NaN or infinite as they are.

    What is found here decides over no collective: something that is no DTensor may be NaN on one rank alone.
    Instead the groups in which a rank has met what is not finite come last.
    """
    sums, scales = norms.unbind(1)
    bad = ~torch.isfinite(sums)

    def counted(rows: Tensor) -> Tensor:
        return torch.zeros(count, dtype=torch.int64, device="cpu").index_add_(0, of_row, rows.long())

    nan, infinite = counted(sums.isnan()), counted(sums.isinf())
    if math.isinf(p):
        # NaN wins over every number: it is asked for apart.
        sign = math.copysign(1.0, p)
        extremes = torch.full((count,), -torch.inf, dtype=torch.float64, device="cpu")
        extremes.scatter_reduce_(0, of_row, torch.where(sums.isnan(), -torch.inf, sign * sums), "amax")
        least = minimum(shares, torch.stack((ordered(-extremes), -nan), 1))
        found = torch.where(least[:, 1] < 0, torch.nan, -unordered(least[:, 0]) * sign)
        return found, torch.ones_like(found), added_and_told(shares, [], bool(bad.any()))[1]
    # The largest scale, and whether something is not finite, are the same on all ranks before they add.
    largest = torch.zeros(count, dtype=torch.float64, device="cpu")
    largest.scatter_reduce_(0, of_row, torch.where(sums == 0, 0.0, scales), "amax")
    least = minimum(shares, torch.stack((ordered(-largest), -nan, -infinite), 1))
    scale = -unordered(least[:, 0])
    of_kind = torch.where(scale == 0, 1.0, scale).clamp(min=5e-324)
    shrunk = torch.where(bad | (sums == 0), 0.0, sums * (scales / of_kind[of_row]) ** p)
    exact = _C.ExactTable.summed(shrunk, of_row, count)
    windows = torch.tensor([[0, -_C.EXACT_LIMBS]], dtype=torch.int64, device="cpu").repeat(count, 1)
    limbs, per_row = exact.packed(windows)
    (limbs,), heard = added_and_told(shares, [(limbs, per_row)], bool(bad.any()))
    together = _C.ExactTable.unpacked(windows, limbs).rounded().flatten()
    together = torch.where(least[:, 2] < 0, torch.inf, together)
    return torch.where(least[:, 1] < 0, torch.nan, together), scale, heard


def _as_norm(norm: float, tensors: Sequence[Tensor]) -> Tensor:
    """As ``total_norm`` returns it: float64 where a tensor is, else float32, where the tensors are."""
    wide = any(t.dtype in (torch.float64, torch.complex128) for t in tensors)
    devices = [t.device for t in tensors if not t.is_cpu] or [torch.device("cpu")]
    return torch.tensor(norm, dtype=torch.float64 if wide else torch.float32, device=devices[0])


def _check_order(verb: str, p: float) -> None:
    if not (p >= 0 or p == -math.inf):
        raise ValueError(f"{verb}: the order of the norm must be 0, positive, inf or -inf, got {p}")


def _nonfinite(parts: Parts, heard: Sequence[Share], locals: ParamTable, p: float) -> str:
    largest = _C.tensor_norms(on_host(locals)._native, math.inf)[:, 0]
    names = parts.table.names
    bad = {names[row] for row in (~torch.isfinite(largest)).nonzero().flatten().tolist()}
    for share in heard:
        bad.update(*gathered(bad, share.group))
    # In the table's order; a rank may have none of another's.
    first = next((name for name in names if name in bad), min(bad, default=None))
    cause = (
        "no gradient has a NaN or an infinity, but their norm overflows"
        if first is None
        else f"the first gradient with a NaN or an infinity is that of parameter {first!r}"
    )
    return (
        f"The total norm of order {p:g} for gradients from `parameters` is non-finite, so it cannot be "
        f"clipped: {cause}. To disable this error and scale the gradients by the non-finite norm anyway, set "
        "`error_if_nonfinite=False`"
    )
