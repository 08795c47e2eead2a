"""What is wrong with a source's parameters, or worth knowing about them, in words.

>>> from pyparam._findings import findings
>>> for found in findings(model):
...     print(found)
error: 1 parameter has values that are not finite: head.weight

A finding is an *error* (values that no training or inference survives), a *warning* (very likely a mistake)
or *info* (worth knowing, often by design: tied weights, zero-initialised branches). A freshly initialised
model has neither errors nor warnings. What is looked for stands in ``CHECKS``, one function a kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pyparam._findings import constant, nonfinite, places, precision, repeated, scale, sharing, unwritten
from pyparam._findings.finding import SEVERITIES, Finding, Severity
from pyparam._findings.survey import Survey, survey

__all__ = ["CHECKS", "Finding", "Severity", "Survey", "findings", "findings_of", "survey"]

CHECKS: tuple[Callable[[Survey], Iterator[Finding]], ...] = (
    nonfinite.nonfinite,
    unwritten.unwritten,
    constant.constant,
    repeated.repeated,
    scale.scale,
    precision.precision,
    places.devices,
    places.dtypes,
    sharing.sharing,
    places.unreadable,
)


def findings(source: Any) -> list[Finding]:
    """Looks at every parameter and buffer of a source, the gravest finding first.

    Values are read once, by ``measure``; large matrices once more in part, for rows that repeat.

    Args:
        source: whatever has parameters: a module, a state dict, a checkpoint's path, ...

    Raises:
        TypeError, ValueError, OSError: as ``walk`` and ``open``, for what is no source.
    """
    return findings_of(survey(source))


def findings_of(seen: Survey) -> list[Finding]:
    """``findings`` of what was measured already."""
    found = [finding for check in CHECKS for finding in check(seen)]
    # Stable: within a severity, in the order of the checks.
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
