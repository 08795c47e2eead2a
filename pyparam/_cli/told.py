"""Findings as lines of a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from pyparam._base.words import plain
from pyparam._findings import Finding

_NAMES = 6


def lines_of(finding: Finding, *, advice: bool) -> Iterator[str]:
    """Severity and title, the first names with what is said of each, and what to do next."""
    sure = "" if finding.confidence == "certain" else f" ({finding.confidence})"
    yield f"{finding.severity:<8} {plain(finding.title)}{sure if advice else ''}"
    for name in finding.names[:_NAMES]:
        detail = finding.details.get(name)
        yield f"{'':<8}   {plain(name)}" + (f"  {plain(detail)}" if detail else "")
    more = len(finding.names) - _NAMES
    if more > 0:
        yield f"{'':<8}   and {more:,} more"
    if advice and finding.is_fault:
        yield f"{'':<8} why:  {plain(finding.reason)}"
        if finding.advice:
            yield f"{'':<8} next: {plain(finding.advice)}"
