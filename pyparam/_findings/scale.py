"""Parameters far larger or smaller than those that play the same role."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pyparam._base.words import plural
from pyparam._findings.families import NORM, Family
from pyparam._findings.finding import Finding
from pyparam._findings.outlying import outliers
from pyparam._findings.survey import Survey

# How far the root mean square may lie from the median of its siblings, as a power of two.
_MATRICES = 5.0
_VECTORS = 10.0
_OTHER_ROLES = 8.0
_PAIRS = 6.0
_SPREADS = 6.0
_FEWEST = 3
# Of one role in alike blocks, which differ less: what is allowed at the least, and in their own spread.
_CLOSE_SIBLINGS = 4
_MANY = 6
_ROLE_SPREADS = 12.0
_ROLE_MATRICES = 2.5
_ROLE_FEW = 2.9
_ROLE_GAINS = 5.0
_ROLE_VECTORS = 8.0
# By chance alone a few values can all be small.
_FEW_VALUES = 16


def scale(seen: Survey) -> Iterator[Finding]:
    """Root mean squares far from those of siblings of the same shape.

    Siblings have the same name but for its numbers; a parameter without two of those is held against all
    matrices of its shape, with more patience. Trained models differ from layer to layer, so the distance is
    also held against how far the siblings lie apart among themselves.
    """
    rms, numel = seen.column("rms"), seen.column("numel")
    low, high = seen.column("min"), seen.column("max")
    explained = outliers(seen)  # a single row that makes the whole large is told of by itself
    level = {
        row: math.log2(rms[row])
        for row in seen.rows
        if rms[row] > 0
        and seen.is_float(row)
        and (low[row] < high[row] or not seen.is_matrix(row))
        and row not in explained.rows
        and row not in explained.damaged
    }
    told: dict[int, str] = {}
    alone: dict[tuple[int, ...], list[int]] = {}
    for role in seen.roles:
        rows = [row for row in role.rows if row in level]
        if len(rows) >= _CLOSE_SIBLINGS:
            floor = _floor(seen, role, len(rows))
            told |= _outliers(
                seen, rows, level, numel, floor, f"its {len(rows) - 1:,} siblings", spreads=_ROLE_SPREADS
            )
    for family in seen.families:
        rows = [row for row in family.rows if row in level]
        if not rows:
            continue
        is_matrix = seen.is_matrix(rows[0])
        if len(rows) >= _FEWEST:
            allowed = _MATRICES if is_matrix else _VECTORS
            told |= _outliers(seen, rows, level, numel, allowed, f"its {len(rows) - 1:,} siblings")
        elif is_matrix:
            odd = _of_two(seen, rows, level, _PAIRS) if len(rows) == 2 else {}
            told |= odd
            if not odd:
                alone.setdefault(seen.sizes(rows[0]), []).extend(rows)
    for shape, rows in alone.items():
        alike = [row for row in level if seen.sizes(row) == shape and not seen.statistic[row]]
        if len(alike) >= _FEWEST:
            found = _outliers(seen, alike, level, numel, _OTHER_ROLES, "others of its shape")
            told |= {row: words for row, words in found.items() if row in set(rows)}
        elif len(alike) == 2:
            told |= _of_two(seen, alike, level, _OTHER_ROLES)
    if told:
        rows = sorted(told)
        names = seen.names
        yield Finding(
            "scale",
            "warning",
            f"{plural(len(rows), 'parameter')} {'has' if len(rows) == 1 else 'have'} another scale than "
            f"{'its' if len(rows) == 1 else 'their'} siblings",
            "Parameters that play the same role in alike blocks have values of like size, at the start by "
            "design and "
            "later within a few powers of two. A factor such as this is a wrong initialisation, a wrong "
            "conversion, or "
            "training that diverged.",
            seen.take(rows),
            {names[row]: told[row] for row in rows},
            "Compare with the checkpoint or the initialisation it came from; look at when it left its course "
            "with a Monitor.",
            "likely",
        )


def _floor(seen: Survey, role: Family, count: int) -> float:
    if seen.is_matrix(role.rows[0]):
        return _ROLE_MATRICES if count >= _MANY else _ROLE_FEW
    return _ROLE_GAINS if NORM.search(role.key) else _ROLE_VECTORS


def _outliers(
    seen: Survey,
    rows: list[int],
    level: dict[int, float],
    numel: list[int],
    allowed: float,
    whom: str,
    *,
    spreads: float = _SPREADS,
) -> dict[int, str]:
    middle = _median([level[row] for row in rows])
    spread = _median([abs(level[row] - middle) for row in rows])
    limit = max(allowed, spreads * spread)
    return {
        row: _told(level[row] - middle, whom)
        for row in rows
        if level[row] - middle > limit or (level[row] - middle < -limit and numel[row] >= _FEW_VALUES)
    }


def _of_two(seen: Survey, rows: list[int], level: dict[int, float], allowed: float) -> dict[int, str]:
    """Of two that differ, the one farther from what layers start with: 1 over the root of the inputs."""
    first, second = rows
    if abs(level[first] - level[second]) <= allowed:
        return {}
    inputs = math.prod(seen.sizes(first)[1:])
    odd = max(rows, key=lambda row: abs(level[row] + math.log2(inputs) / 2))
    other = second if odd == first else first
    return {odd: _told(level[odd] - level[other], "its sibling")}


def _told(octaves: float, whom: str) -> str:
    factor = 2.0 ** abs(octaves)
    size = f"{factor:,.0f}" if 100 <= factor < 1e6 else f"{factor:.3g}"
    return f"{size} times {'larger' if octaves > 0 else 'smaller'} than {whom}"


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
