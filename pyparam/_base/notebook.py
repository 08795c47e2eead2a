"""What notebooks show: compact tables that take their colours from the page, dark or light."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import singledispatch
from html import escape
from typing import Any

from pyparam._base.words import plain

# Lines in the page's own colour, faint; the one colour of ours is read on black and on white.
_STYLE = (
    "<style>"
    ".pyparam table{color:inherit;border-collapse:collapse;font-size:12px;font-variant-numeric:tabular-nums}"
    ".pyparam th,.pyparam td{padding:2px 10px 2px 4px;text-align:right;white-space:pre;background:none;"
    "border:0;border-bottom:1px solid color-mix(in srgb,currentColor 18%,transparent)}"
    ".pyparam th{font-weight:600}"
    ".pyparam .left{text-align:left}"
    ".pyparam .bad td{color:#e5484d}"
    ".pyparam .last td{font-weight:600}"
    ".pyparam p{margin:4px;font-size:12px;opacity:.75}"
    "</style>"
)


@singledispatch
def html(value: Any) -> str:
    """What a notebook shows of a value. The room that draws a kind of value registers itself for it."""
    raise TypeError(f"nothing draws a {type(value).__name__} in a notebook")


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: int = 1,
    more: str = "",
    total: Sequence[str] | None = None,
    bad: Iterable[int] = (),
    notes: Iterable[str] = (),
) -> str:
    """A table whose first ``left`` columns read from the left.

    ``more`` is a line after the rows, ``total`` a last row, ``bad`` the numbers of rows to point out,
    ``notes`` lines below. Every text is escaped.
    """

    def cells(line: Sequence[str], tag: str) -> str:
        made = []
        for i, cell in enumerate(line):
            side = ' class="left"' if i < left else ""
            made.append(f"<{tag}{side}>{escape(plain(cell))}</{tag}>")
        return "".join(made)

    flawed = set(bad)
    lines = []
    for i, row in enumerate(rows):
        mark = ' class="bad"' if i in flawed else ""
        lines.append(f"<tr{mark}>{cells(row, 'td')}</tr>")
    if more:
        lines.append(f'<tr><td class="left" colspan="{len(head)}">{escape(plain(more))}</td></tr>')
    if total is not None:
        lines.append(f'<tr class="last">{cells(total, "td")}</tr>')
    below = "".join(f"<p>{escape(plain(note))}</p>" for note in notes)
    return (
        f'<div class="pyparam">{_STYLE}<table><thead><tr>{cells(head, "th")}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>{below}</div>"
    )
