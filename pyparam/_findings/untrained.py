"""Parameters still at their default initialisation, where their siblings were trained."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pyparam._findings.families import NORM, WEIGHT
from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey
from pyparam._findings.telling import told

_MINORITY = 0.34
_FEWEST = 3
_FEW_VALUES = 256
_CLOSE = 0.05
_NEAR = 1.1


def untrained(seen: Survey) -> Iterator[Finding]:
    """Of those of one role, a few that are as ``torch.nn`` makes them: gains of 1, and matrices that are
    uniform within 1 / sqrt(inputs) (``kaiming_uniform_(a=sqrt(5))``), while the others are not.
    """
    found: dict[int, str] = {}
    for family in seen.roles:
        rows = [row for row in family.rows if seen.is_float(row)]
        if len(rows) < _FEWEST:
            continue
        if NORM.search(family.key):
            fresh = [row for row in rows if is_default_gain(seen, row)]
            near = fresh
            words = "a gain of 1 everywhere"
        elif WEIGHT.search(family.key) and seen.is_matrix(rows[0]):
            fresh = [row for row in rows if _is_default_matrix(seen, row, 1.001)]
            near = [row for row in rows if _is_default_matrix(seen, row, _NEAR)]
            words = "uniform within 1 / sqrt(inputs)"
        else:
            continue
        # Where others are hardly beyond the bound, training has only begun, and one may be within by chance.
        if fresh == near and fresh and len(fresh) <= _MINORITY * len(rows):
            found |= dict.fromkeys(fresh, words)
    if found:
        yield told(
            seen,
            found,
            "untrained",
            "warning",
            "is still at its default initialisation, and its siblings are not",
            "are still at their default initialisation, and their siblings are not",
            reason="Training moves the same parameter of all blocks, and loading fills it: this one was not "
            "reached by either, or was made anew afterwards.",
            advice="Look for its name among the missing keys of load_state_dict, and whether its layer gets "
            "a gradient.",
            confidence="likely",
        )


def is_default_gain(seen: Survey, row: int) -> bool:
    low, high, numel = (seen.column(name)[row] for name in ("min", "max", "numel"))
    return bool(numel > 1 and low == high == 1)


def _is_default_matrix(seen: Survey, row: int, within: float) -> bool:
    numel = seen.column("numel")[row]
    sizes = seen.sizes(row)
    if numel < _FEW_VALUES or not sizes or not sizes[0]:
        return False
    bound = 1 / math.sqrt(numel / sizes[0])
    return bool(
        (1 - _CLOSE) * bound < seen.column("max_abs")[row] <= bound * within
        and abs(seen.column("rms")[row] * math.sqrt(3) / bound - 1) < _CLOSE
        and abs(seen.quantile(0.25)[row] + bound / 2) < 2 * _CLOSE * bound
        and abs(seen.quantile(0.75)[row] - bound / 2) < 2 * _CLOSE * bound
    )
