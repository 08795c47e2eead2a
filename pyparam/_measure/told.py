"""Figures and reasons as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from pyparam._base.words import plain


def aligned(lines: list[list[str]], left: set[int]) -> str:
    """Rows of cells as text, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def reasons_told(what: str, reasons: Mapping[str, str]) -> list[str]:
    """A line an entry with its reason, ten of them at most."""
    notes = [f"{what}: {plain(name)}: {plain(reason)}" for name, reason in islice(reasons.items(), 10)]
    return notes + ([f"{what}: {len(reasons) - 10:,} more"] if len(reasons) > 10 else [])
