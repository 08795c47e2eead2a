"""What notebooks show of an Inspector: the tree that ``show`` prints, as a table."""

from __future__ import annotations

from itertools import islice

from pyparam._base.notebook import html, table
from pyparam._inspect.tree import Summary
from pyparam._view.text import HEAD, RIGHT, row_cells, totals, trains

_ROWS = 60


@html.register
def tree(summary: Summary) -> str:
    """The rows that ``show`` prints, at most 60 of them, and its totals."""
    rows = list(islice(summary.rows(), _ROWS + 1))
    shown = [row_cells(row, False, trains(summary)) for row in rows[:_ROWS]]
    names = [name for name in HEAD._fields if any(getattr(cells, name).text for cells in shown)]
    ordered = [name for name in names if name not in RIGHT] + [name for name in names if name in RIGHT]
    return table(
        [getattr(HEAD, name).text for name in ordered],
        ([getattr(cells, name).text for name in ordered] for cells in shown),
        left=sum(name not in RIGHT for name in ordered),
        more="… more: pyparam.show prints all" if len(rows) > _ROWS else "",
        notes=["".join(piece.text for piece in line) for line in totals(summary, trains(summary))],
    )
