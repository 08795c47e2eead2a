"""Parts of a tensor that are zero where the rest is not."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from pyparam._base.words import plural
from pyparam._findings.families import COMPUTED, NORM, WEIGHT
from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey
from pyparam._findings.telling import told

_TABLE_SHARE = 0.25  # of a table's rows that may be zero: padding, and entries that nothing uses
_RUN = 64  # consecutive zeros that no weights have by chance
_SPARSE = 0.3  # a share of zeros beyond which runs of them are pruning
_TAIL = 0.125
_FEW_VALUES = 16


def zeroed(seen: Survey) -> Iterator[Finding]:
    """Rows, input columns, tails and runs of exact zeros in weights.

    Values of trained weights are practically never zero, so only tensors that have as many zeros as a row or
    a run are looked at once more. Tables of embeddings may have some rows of zeros, for padding and for
    entries that nothing uses.
    """
    zeros, numel = seen.column("zeros"), seen.column("numel")
    some = (seen.figure("zeros") > 0) & (seen.figure("zeros") != seen.figure("numel"))
    found: dict[int, str] = {}
    for row in seen.those(seen.weighty & some & ~seen.named_like(COMPUTED)):
        name, sizes = seen.names[row], seen.sizes(row)
        table = seen.is_table(row)
        if seen.is_matrix(row) and (WEIGHT.search(name) or table):
            if zeros[row] >= min(sizes[0], numel[row] // sizes[0], _RUN):
                words = _of_matrix(seen.values(row), table, zeros[row])
                found |= {row: words} if words else {}
        elif len(sizes) == 1 and NORM.search(name) and numel[row] >= _FEW_VALUES:
            tail = _tail(seen.values(row) == 0)
            if tail >= _TAIL * numel[row]:
                found[row] = f"the last {tail:,} of {numel[row]:,} values"
    if found:
        yield told(
            seen,
            found,
            "zero-parts",
            "warning",
            "is zero in part",
            "are zero in part",
            reason="Units of zero weights give nothing, and inputs whose weights are zero are not seen. "
            "Zeros "
            "to the end are what a copy leaves that was cut short, and a run of them a hole in a file.",
            advice="Compare with an earlier checkpoint (pyparam compare); where units were pruned on "
            "purpose, "
            "ignore it.",
            confidence="likely",
        )


def _of_matrix(tensor: Tensor, is_table: bool, count: int) -> str:
    zero = tensor == 0
    rows = zero.shape[0]
    by_row = zero.reshape(rows, -1)
    dead_rows = by_row.all(1)
    dead = int(dead_rows.sum())
    tail = _tail(dead_rows)
    if dead and not (is_table and dead <= max(1, _TABLE_SHARE * rows)):
        if tail == dead and dead > 1:
            return f"the last {dead:,} of {rows:,} rows, to the end"
        which = "" if dead > 1 else f": row {int(dead_rows.nonzero()[0]):,}"
        return f"{plural(dead, 'row')} of {rows:,}{which}"
    if zero.shape[1] > 1:
        dead_columns = zero.reshape(rows, zero.shape[1], -1).all(2).all(0)
        dead = int(dead_columns.sum())
        if dead:
            which = "" if dead > 1 else f": column {int(dead_columns.nonzero()[0]):,}"
            return f"{plural(dead, 'input column')} of {zero.shape[1]:,}{which}"
    if not is_table and count <= _SPARSE * zero.numel():
        flat = by_row.reshape(-1)
        runs = flat[: len(flat) // _RUN * _RUN].reshape(-1, _RUN).all(1)
        if bool(runs.any()):
            first = int(runs.nonzero()[0]) * _RUN
            return f"{int(runs.sum()) * _RUN:,} consecutive values from value {first:,} on"
    return ""


def _tail(zero: Tensor) -> int:
    """How many at the end are True."""
    others = (~zero).nonzero()
    return int(zero.numel() if len(others) == 0 else zero.numel() - 1 - int(others[-1]))
