"""Parameters far larger or smaller than those that play the same role."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pyparam._base.words import plural
from pyparam._findings.families import NORM, Family
from pyparam._findings.finding import Finding
from pyparam._findings.numbers import column
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
    levels = _levels(seen)
    seen.let_go(between_checks=True)
    told: dict[int, str] = {}
    alone: dict[tuple[int, ...], list[int]] = {}
    for role in seen.roles:
        rows = levels.of(role.rows)
        if len(rows) >= _CLOSE_SIBLINGS:
            floor = _floor(seen, role, len(rows))
            told |= levels.outliers(rows, floor, f"its {len(rows) - 1:,} siblings", spreads=_ROLE_SPREADS)
    seen.let_go(between_checks=True)
    for family in seen.families:
        rows = levels.of(family.rows)
        if not len(rows):
            continue
        is_matrix = seen.is_matrix(family.rows[0])
        if len(rows) >= _FEWEST:
            allowed = _MATRICES if is_matrix else _VECTORS
            told |= levels.outliers(rows, allowed, f"its {len(rows) - 1:,} siblings")
        elif is_matrix:
            few = rows.tolist()
            odd = _of_two(seen, few, levels, _PAIRS) if len(few) == 2 else {}
            told |= odd
            if not odd:
                alone.setdefault(seen.sizes(few[0]), []).extend(few)
    for shape, few in alone.items():
        alike = levels.of_shape(shape)
        if len(alike) >= _FEWEST:
            found = levels.outliers(alike, _OTHER_ROLES, "others of its shape")
            told |= {row: words for row, words in found.items() if row in set(few)}
        elif len(alike) == 2:
            told |= _of_two(seen, alike.tolist(), levels, _OTHER_ROLES)
    if told:
        listed = sorted(told)
        names = seen.names
        yield Finding(
            "scale",
            "warning",
            f"{plural(len(listed), 'parameter')} {'has' if len(listed) == 1 else 'have'} another scale than "
            f"{'its' if len(listed) == 1 else 'their'} siblings",
            "Parameters that play the same role in alike blocks have values of like size, at the start by "
            "design and "
            "later within a few powers of two. A factor such as this is a wrong initialisation, a wrong "
            "conversion, or "
            "training that diverged.",
            seen.take(listed),
            {names[row]: told[row] for row in listed},
            "Compare with the checkpoint or the initialisation it came from; look at when it left its course "
            "with a Monitor.",
            "likely",
        )


def _floor(seen: Survey, role: Family, count: int) -> float:
    if seen.is_matrix(role.rows[0]):
        return _ROLE_MATRICES if count >= _MANY else _ROLE_FEW
    return _ROLE_GAINS if NORM.search(role.key) else _ROLE_VECTORS


class _Levels:
    """Root mean squares as powers of two, NaN for rows that are not held against others."""

    def __init__(self, seen: Survey, level: Tensor) -> None:
        self._seen = seen
        self._level = level
        self._many = seen.figure("numel") >= _FEW_VALUES

    def __getitem__(self, row: int) -> float:
        return float(self._level[row])

    def of(self, rows: Sequence[int]) -> Tensor:
        """Those of some rows that have one."""
        some = column(rows)
        return some[~self._level[some].isnan()]

    def of_shape(self, shape: tuple[int, ...]) -> Tensor:
        seen = self._seen
        rows = ~self._level.isnan() & seen.layouts.where(lambda kind: kind.sizes == shape) & ~seen.statistic
        return rows.nonzero().flatten()

    def outliers(
        self, rows: Tensor, allowed: float, whom: str, *, spreads: float = _SPREADS
    ) -> dict[int, str]:
        level = self._level[rows]
        distance = level - _median(level)
        limit = max(allowed, spreads * float(_median(distance.abs())))
        odd = (distance > limit) | ((distance < -limit) & self._many[rows])
        return {
            row: _told(octaves, whom)
            for row, octaves in zip(rows[odd].tolist(), distance[odd].tolist(), strict=True)
        }


def _levels(seen: Survey) -> _Levels:
    rms = seen.figure("rms")
    explained = outliers(seen)  # a single row that makes the whole large is told of by itself
    held = seen.measured & (rms > 0) & seen.floats
    held &= (seen.figure("min") < seen.figure("max")) | ~seen.matrices
    told_already = [*explained.rows, *explained.damaged]
    held[torch.tensor(told_already, dtype=torch.int64, device="cpu")] = False
    return _Levels(seen, torch.where(held, rms.log2(), torch.nan))


def _of_two(seen: Survey, rows: list[int], level: _Levels, allowed: float) -> dict[int, str]:
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


def _median(values: Tensor) -> Tensor:
    """The mean of the middle two where there are two."""
    count = len(values)
    lower = values.kthvalue((count + 1) // 2).values
    if count % 2:
        return lower
    above = values[values > lower]
    upper = lower if count - len(above) > count // 2 else above.min()
    return (lower + upper) / 2
