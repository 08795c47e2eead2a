"""What notebooks show: compact tables that take their colours from the page, dark or light."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import singledispatch
from html import escape
from typing import Any

from pyparam._base.words import a_kind, plain

# Notebooks style tables too: JupyterLab by `:not(.jp-RenderedMarkdown).jp-RenderedHTMLCommon td` and
# `.jp-RenderedHTMLCommon tbody tr:nth-child(odd)`, two classes and two elements. Three classes win over them.
_OURS = ".pyparam.pyparam.pyparam"
# Lines in the page's own colour, faint; the one colour of ours is read on black and on white.
_RULES = (
    (
        "table",
        "color:inherit;border-collapse:collapse;table-layout:auto;margin:0;font-size:12px;"
        "font-variant-numeric:tabular-nums",
    ),
    ("tr", "background:none;border:0;padding:0;text-align:left"),
    (
        "th|td",
        "padding:2px 10px 2px 4px;text-align:right;vertical-align:middle;line-height:normal;"
        "white-space:pre;max-width:none;background:none;border:0;"
        "border-bottom:1px solid color-mix(in srgb,currentColor 18%,transparent)",
    ),
    ("thead", "border:0"),
    ("th", "font-weight:600"),
    (".left", "text-align:left"),
    (".bad td", "color:#e5484d"),
    (".last td", "font-weight:600"),
    ("p", "margin:4px;text-align:left;font-size:12px;opacity:.75"),
)
_STYLE = "".join(
    f"{','.join(f'{_OURS} {part}' for part in where.split('|'))}{{{rules}}}" for where, rules in _RULES
)
_STYLE = f"<style>{_STYLE}</style>"


@singledispatch
def html(value: Any) -> str:
    """What a notebook shows of a value. The room that draws a kind of value registers itself for it."""
    raise TypeError(f"nothing draws {a_kind(value)} in a notebook")


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
