"""Gradients as they are measured: sparse ones by the values they have."""

from __future__ import annotations

import math

import torch

from pyparam._measure.measure import measure_strictly
from pyparam._measure.norm import total_norm
from pyparam._measure.stats import Stats
from pyparam._share.readable import REFUSALS, read_of
from pyparam._sources.table import ParamTable

_SPARSE = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def gradients_of(table: ParamTable, *, histogram: bool) -> tuple[Stats, dict[str, str]]:
    """Statistics of the gradients, and the reason of each parameter whose gradient cannot be read; those are
    among ``missing`` too.
    """
    try:
        return measure_strictly(table, grad=True, histogram=histogram), {}
    except REFUSALS:
        found, missing = _as_table(table)
        stats, read = read_of(found, lambda part: measure_strictly(part, histogram=histogram))
        stats.missing.extend(name for name in table.names if name in missing or name in read.left_out)
        return stats, read.left_out


def all_finite(table: ParamTable, *, grad: bool) -> bool:
    """Whether the norm says so. It may be infinite of finite values, which measuring then shows."""
    try:
        norm = total_norm(table, grad=grad)
    except REFUSALS:
        norm, _ = read_of(_as_table(table)[0] if grad else table, total_norm)
    return math.isfinite(norm.item())


def _as_table(table: ParamTable) -> tuple[ParamTable, set[str]]:
    """Gradients as a table, and the names of parameters without one."""
    names, values, missing = [], [], set()
    for name, parameter in table:
        gradient = parameter.grad
        if gradient is None:
            missing.add(name)
            continue
        if gradient.layout in _SPARSE:
            gradient = gradient.coalesce() if gradient.layout == torch.sparse_coo else gradient
            gradient = gradient.values()
        names.append(name)
        values.append(gradient)
    return ParamTable(names, values), missing
