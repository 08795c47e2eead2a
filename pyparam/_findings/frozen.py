"""Parameters that are frozen where their siblings are trained."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey
from pyparam._findings.telling import told

_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")
_FEWEST = 3
_MINORITY = 0.34


def frozen(seen: Survey) -> Iterator[Finding]:
    """Of those of one role in alike blocks, a few that do not require a gradient.

    Freezing the first blocks of a model is usual, and all of them is; so is every parameter of a role.
    """
    if not seen.is_model:
        return
    tensors = seen.tensors
    found: dict[int, str] = {}
    for family in seen.roles:
        rows = [row for row in family.rows if seen.is_float(row)]
        if len(rows) < _FEWEST or seen.names[rows[0]] == family.key:
            continue
        still = [row for row in rows if not tensors[row].requires_grad]
        if not still or len(still) > _MINORITY * len(rows):
            continue
        if still == rows[: len(still)] and not _is_trained_beside(seen, still[-1]):
            continue
        found |= dict.fromkeys(still, f"{len(rows) - len(still):,} of {len(rows):,} siblings are trained")
    if found:
        yield told(
            seen,
            found,
            "frozen",
            "warning",
            "is frozen where its siblings are trained",
            "are frozen where their siblings are trained",
            reason="It does not require a gradient, so no optimizer moves it, and the same parameter of "
            "other "
            "blocks does.",
            advice="requires_grad_(True) before the optimizer is made, if it was not meant.",
            confidence="likely",
        )


def _is_trained_beside(seen: Survey, row: int) -> bool:
    """Whether anything else in the same block is trained."""
    match = _INDEX.search(seen.names[row])
    if match is None:
        return False
    block = seen.names[row][: match.end() + 1]
    return any(
        name.startswith(block) and tensor.requires_grad
        for name, tensor in zip(seen.names, seen.tensors, strict=True)
    )
