"""Parameters still at their default initialisation, where their siblings were trained."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

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
    gains, matrices = set(seen.those(_default_gains(seen))), set(seen.those(_default_matrices(seen, 1.001)))
    nearly = set(seen.those(_default_matrices(seen, _NEAR)))
    for family in seen.roles if gains or matrices else ():
        rows = [row for row in family.rows if seen.is_float(row)]
        if len(rows) < _FEWEST:
            continue
        if NORM.search(family.key):
            fresh = near = [row for row in rows if row in gains]
            words = "a gain of 1 everywhere"
        elif WEIGHT.search(family.key) and seen.is_matrix(rows[0]):
            fresh = [row for row in rows if row in matrices]
            near = [row for row in rows if row in nearly]
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


def _default_gains(seen: Survey) -> Tensor:
    return (seen.figure("numel") > 1) & (seen.figure("min") == 1) & (seen.figure("max") == 1)


def _default_matrices(seen: Survey, within: float) -> Tensor:
    """Rows whose values are spread as between -bound and bound, none of them beyond ``within`` times it."""
    numel = seen.figure("numel")
    if not bool((numel >= _FEW_VALUES).any()):
        return torch.zeros(len(seen), dtype=torch.bool, device="cpu")
    outputs = seen.layouts.each(lambda kind: (kind.sizes or (0,))[0])
    bound = 1 / (numel.double() / outputs).sqrt()
    largest = seen.figure("max_abs")
    return (
        (numel >= _FEW_VALUES)
        & (outputs > 0)
        & (largest > (1 - _CLOSE) * bound)
        & (largest <= bound * within)
        & ((seen.figure("rms") * math.sqrt(3) / bound - 1).abs() < _CLOSE)
        & ((seen.quantile(0.25) + bound / 2).abs() < 2 * _CLOSE * bound)
        & ((seen.quantile(0.75) - bound / 2).abs() < 2 * _CLOSE * bound)
    )
