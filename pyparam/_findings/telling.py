"""One finding about several rows, in words."""

from __future__ import annotations

from collections.abc import Mapping

from pyparam._base.words import plural
from pyparam._findings.finding import Confidence, Finding, Severity
from pyparam._findings.survey import Survey


def told(
    seen: Survey,
    rows: Mapping[int, str],
    kind: str,
    severity: Severity,
    one: str,
    many: str,
    *,
    reason: str,
    advice: str,
    confidence: Confidence = "certain",
    noun: tuple[str, str] = ("parameter", "parameters"),
) -> Finding:
    """``rows`` says of each what is to be said ("" for nothing); the title is "1 parameter <one>" or
    "2 parameters <many>".
    """
    ordered = sorted(rows)
    names = seen.names
    return Finding(
        kind,
        severity,
        f"{plural(len(ordered), *noun)} {one if len(ordered) == 1 else many}",
        reason,
        seen.take(ordered),
        {names[row]: rows[row] for row in ordered if rows[row]},
        advice,
        confidence,
    )
