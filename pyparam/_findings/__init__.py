"""What is wrong with a source's parameters, or worth knowing about them, in words.

>>> for found in pyparam.findings(model):
...     print(found)
error: 1 parameter has values that are not finite: head.weight

A finding is an *error* (values that no training or inference survives), a *warning* (very likely a mistake)
or *info* (worth knowing, often by design: tied weights, zero-initialised branches). A freshly initialised
model has neither errors nor warnings. What is looked for stands in ``CHECKS``, one function a kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pyparam._base.closest import closest, hint
from pyparam._base.modes import require_memory
from pyparam._findings import (
    buffers,
    coarse,
    constant,
    copies,
    empty,
    frozen,
    moments,
    nonfinite,
    outlying,
    places,
    precision,
    ranks,
    repeated,
    scale,
    sharing,
    untrained,
    unwritten,
    zeroed,
)
from pyparam._findings.finding import SEVERITIES, Finding, Severity
from pyparam._findings.survey import Survey, survey
from pyparam._sources.table import Pattern

__all__ = [
    "CHECKS",
    "KINDS",
    "SEVERITIES",
    "Finding",
    "Severity",
    "Survey",
    "findings",
    "findings_of",
    "survey",
]

KINDS = (
    "non-finite",
    "damaged",
    "empty",
    "never-initialised",
    "running-statistics",
    "second-moment",
    "all-zero",
    "constant",
    "zero-parts",
    "untrained",
    "copy",
    "duplicate-rows",
    "outlier",
    "scale",
    "one-signed",
    "low-rank",
    "frozen",
    "range",
    "coarse",
    "mixed-devices",
    "mixed-dtypes",
    "tied",
    "unreadable",
)

CHECKS: tuple[Callable[[Survey], Iterator[Finding]], ...] = (
    nonfinite.nonfinite,
    nonfinite.gradients,
    empty.empty,
    unwritten.unwritten,
    buffers.buffers,
    moments.moments,
    outlying.outlying,
    constant.constant,
    zeroed.zeroed,
    untrained.untrained,
    copies.copies,
    repeated.repeated,
    scale.scale,
    outlying.one_signed,
    ranks.ranks,
    frozen.frozen,
    precision.precision,
    coarse.coarse,
    places.devices,
    places.dtypes,
    sharing.sharing,
    places.unreadable,
)


def findings(source: Any, *, ignore: Iterable[str] = (), select: Pattern | None = None) -> list[Finding]:
    """What is wrong with a source's parameters and buffers, or worth knowing, the gravest first.

    ========================== =========================================================================
    kind                       what is found
    ========================== =========================================================================
    non-finite                 NaNs and infinities in values and in a model's gradients
    damaged                    a stretch of random bytes between good values
    empty                      tensors of shape [0] that were saved without being gathered
    never-initialised          meta, lazy or unwritten memory, also of buffers; rotary frequencies of none
    running-statistics         variances below zero, of zero or absurd; batch norms that saw no batch
    second-moment              an optimizer's second moments below zero, lost, or never moved
    all-zero, constant         dead layers, matrices of one value, adapters that adapt nothing
    zero-parts                 zero rows, input columns, tails and runs in weights
    untrained                  a layer at its default initialisation among trained siblings
    copy                       a layer with the bits of another; equal tables that are not tied
    duplicate-rows             rows of a matrix that are the same bits
    outlier                    a row or a value far beyond the others of its matrix
    scale                      a root mean square far from that of siblings
    one-signed                 matrices without one of the signs
    low-rank                   matrices of few directions, or ruled by one unlike their siblings
    frozen                     a parameter frozen among siblings that are trained
    range                      subnormal or saturated values, values beyond float16
    coarse                     half precision or dequantized integers stored wider
    mixed-devices, mixed-dtypes  parameters that lie apart, or differ from their siblings
    tied                       names that share memory
    unreadable                 tensors without plain values
    ========================== =========================================================================

    Each says how grave it is (``severity``), how sure (``confidence``) and what to do next (``advice``).
    Values are read once, by ``measure``; matrices of 64 or more either way, and what looks odd, once more.
    Optimizer states in a training checkpoint are held against their like, never against weights. A healthy
    model, fresh or trained, has neither errors nor warnings.

    Args:
        source: whatever has parameters: a module, a state dict, a checkpoint's path, ...
        ignore: kinds that are not told, and globs of names that are not looked at (``"*.lora_B.*"``).
        select: only what ``ParamTable.select`` takes with this pattern is looked at.

    Raises:
        TypeError, ValueError, OSError: as ``walk`` and ``open``, for what is no source; ValueError for an
            ``ignore`` that is neither a kind nor a glob.
    """
    require_memory("findings")
    if isinstance(ignore, str):
        raise TypeError(f"findings: ignore is the string {ignore!r}; expected a list of kinds and globs")
    wanted = list(ignore)
    patterns = [word for word in wanted if word not in KINDS]
    for word in patterns:
        if not any(character in word for character in "*?[."):
            raise ValueError(
                f"findings: ignore={word!r} is neither a kind ({', '.join(KINDS)}) nor a glob of names"
                f"{hint(closest(word, KINDS))}"
            )
    seen = survey(source, select)
    if patterns:
        seen = seen.without(patterns)
    kinds = {word for word in wanted if word in KINDS}
    return [finding for finding in findings_of(seen) if finding.kind not in kinds]


def findings_of(seen: Survey) -> list[Finding]:
    """``findings`` of what was measured already."""
    found: list[Finding] = []
    for check in CHECKS:
        seen.let_go(between_checks=True)
        found += check(seen)
    # Stable: within a severity, in the order of the checks.
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
