"""What all callbacks take: a Monitor's options, with the rules on."""

from __future__ import annotations

from typing import Any

from pyparam._watch.rules import DEFAULT_RULES

PREFIX = "pyparam"


def monitor_options(options: dict[str, Any], caller: str) -> dict[str, Any]:
    """Options of a Monitor; a callback has ``on_record`` for itself."""
    if "on_record" in options:
        raise TypeError(f"{caller}: on_record is the callback's own; read callback.monitor.history")
    return {"alarms": DEFAULT_RULES, **options}
