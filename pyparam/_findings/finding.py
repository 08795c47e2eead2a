"""Finding, one thing to tell about one or many parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pyparam._base.words import plain

Severity = Literal["error", "warning", "info"]
Confidence = Literal["certain", "likely", "possible"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

_SHOWN = 4


@dataclass(frozen=True)
class Finding:
    """One thing to tell, and the parameters it is about."""

    kind: str
    """A word for programs, one of ``pyparam.findings``' table."""

    severity: Severity
    """"error": no training survives it, "warning": very likely a mistake, "info": worth knowing."""

    title: str
    """A sentence without its full stop: "2 parameters have values that are not finite"."""

    reason: str
    """Why this is told, and what it means."""

    names: tuple[str, ...]
    """Qualified names, in the source's order; the first to look at first where one matters most."""

    details: Mapping[str, str] = field(default_factory=dict)
    """What is to be said of single parameters: name to words, for some or all of ``names``."""

    advice: str = ""
    """What to do next."""

    confidence: Confidence = "certain"
    """How sure it is that this is so: "certain" of what was read off the values, "likely" and "possible" of
    what is concluded from them. How bad it is, is ``severity``."""

    @property
    def is_fault(self) -> bool:
        """An error or a warning, not what is told for information."""
        return self.severity != "info"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "title": self.title,
            "reason": self.reason,
            "names": list(self.names),
            "details": dict(self.details),
            "advice": self.advice,
            "confidence": self.confidence,
        }

    def __str__(self) -> str:
        shown = [
            plain(name) + (f" ({plain(self.details[name])})" if name in self.details else "")
            for name in self.names[:_SHOWN]
        ]
        more = len(self.names) - len(shown)
        text = f"{self.severity}: {plain(self.title)}"
        if shown:
            text += ": " + ", ".join(shown)
        return text + (f" and {more:,} more" if more else "")
