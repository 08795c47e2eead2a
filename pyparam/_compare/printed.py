"""A comparison as text and as a table, for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from pyparam._base.notebook import table
from pyparam._base.words import dtype_name, plain, shape_text
from pyparam._compare.roles import roles_of

if TYPE_CHECKING:
    from pyparam._base.rename import Suggestion
    from pyparam._compare.comparison import Comparison, Difference

SHOWN = 10
_ROLES = 24

Fit: TypeAlias = "Callable[[Sequence[tuple[str, ...]]], Sequence[int]]"
"""Of the rows of a table, its head first: which columns to print."""

HEADER = (
    "parameter",
    "shape",
    "max |a-b|",
    "mean |a-b|",
    "rel L2",
    "cosine",
    "differing",
    "non-finite",
    "first",
)


def headline(comparison: Comparison) -> str:
    if comparison.equal:
        if comparison.accepted:
            return f"no difference: {_counted(comparison)}, {len(comparison.accepted):,} of them accepted"
        return f"equal: {_counted(comparison)}, the same bits"
    same = int(comparison.equal_bits.sum())
    accepted = f", {len(comparison.accepted):,} accepted" if comparison.accepted else ""
    return f"{len(comparison.changed()):,} changed, {same:,} the same{accepted}"


def details(comparison: Comparison, n: int, by: str, fit: Fit | None = None) -> list[str]:
    lines = [f"  {line}" for line in _unmatched(comparison)]
    lines += [f"  {role.text()}" for role in roles_of(comparison)[:_ROLES] if role.count > 1]
    worst = comparison.worst(n, by)
    if worst:
        rows = [HEADER, *map(_cells, worst)]
        kept = range(len(HEADER)) if fit is None else fit(rows)
        cells = [[row[column] for column in kept] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for first, *rest in cells:
            padded = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
            lines.append("  ".join(["", first.ljust(widths[0]), *padded]).rstrip())
    more = len(comparison._changed()) - len(worst)
    if more > 0:
        lines.append(f"  and {more:,} more")
    return lines


def html(comparison: Comparison) -> str:
    notes = [headline(comparison), *_unmatched(comparison)]
    return table(HEADER, (_cells(row) for row in comparison.worst()), notes=notes)


def _unmatched(comparison: Comparison) -> list[str]:
    lines = []
    for label, names in (("missing in b", comparison.missing), ("missing in a", comparison.unexpected)):
        if names:
            lines.append(f"{len(names):,} {label}: {_some(names)}")
    if comparison.shape_changed:
        shown = [f"{name} {list(x)} → {list(y)}" for name, (x, y) in comparison.shape_changed.items()]
        lines.append(f"{len(shown):,} of another shape: {_some(shown)}")
    if comparison.dtype_changed:
        shown = [
            f"{name} {dtype_name(x)} → {dtype_name(y)}" for name, (x, y) in comparison.dtype_changed.items()
        ]
        lines.append(f"{len(shown):,} of another dtype: {_some(shown)}")
    if comparison.unread:
        shown = [f"{name} ({reason})" for name, reason in comparison.unread.items()]
        lines.append(f"{len(shown):,} could not be read: {_some(shown)}")
    if comparison.values_changed:
        shown = list(comparison.values_changed)
        lines.append(f"{len(shown):,} that are no tensors differ: {_some(shown)}")
    if comparison.unseen:
        shown = [f"{name} ({kind})" for name, kind in comparison.unseen.items()]
        lines.append(f"{len(shown):,} not looked at, so not called equal: {_some(shown)}")
    if comparison.suggestion is not None:
        lines.append(_suggested(comparison, comparison.suggestion))
    lines += [entry.text() for entry in comparison.structure[:SHOWN]]
    if len(comparison.structure) > SHOWN:
        lines.append(f"and {len(comparison.structure) - SHOWN:,} more in another structure")
    notes: dict[str, list[str]] = {}
    for name, words in (comparison.recognised | comparison.accepted).items():
        notes.setdefault(words, []).append(name)
    lines += [f"{len(names):,} {words}: {_some(names)}" for words, names in notes.items()]
    return [plain(line) for line in lines]


def _suggested(comparison: Comparison, found: Suggestion) -> str:
    unmatched = min(len(comparison.missing), len(comparison.unexpected))
    most = len(comparison) + len(comparison.shape_changed) + unmatched
    many = f"all {most:,} match" if found.matched >= most else f"{found.matched:,} of {most:,} match"
    option = f"rename={found.text!r}, --map {found.text}"
    if found.is_infix:
        option = f"--map '/{found.text[:-1]}\\./='"
    return f"{many} once {found.text!r} is removed from {'ab'[found.side]} ({option})"


def _cells(row: Difference) -> tuple[str, ...]:
    return (
        plain(row.name),
        shape_text(row.shape),
        f"{row.max_abs:.3g}",
        f"{row.mean_abs:.3g}",
        f"{row.rel_l2:.3g}",
        f"{row.cosine:.6f}",
        f"{row.differing:,}",
        f"{row.nonfinite:,}" if row.nonfinite else "",
        "" if row.first_index is None else str(list(row.first_index)),
    )


def _counted(comparison: Comparison) -> str:
    return f"{len(comparison):,} parameter{'' if len(comparison) == 1 else 's'}"


def _some(names: Sequence[str], shown: int = 3) -> str:
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest:,} more" if rest > 0 else "")
