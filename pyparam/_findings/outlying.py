"""Rows, values and stretches that lie far outside the rest of their tensor; weights of one sign."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pyparam._findings.families import WEIGHT
from pyparam._findings.finding import Finding
from pyparam._findings.numbers import numbers
from pyparam._findings.survey import Survey
from pyparam._findings.telling import told

_LARGE = 256
_FEWEST_ROWS = 8
_PEAK = 8.0  # the largest over the root mean square, below which no row of the matrix is far out
_ROW = 32.0  # the norm of a row over the median of the rows'
_GAP = 8.0  # ... and over the largest of the others: trained rows have a long tail, without gaps
_SHARE = 0.02  # of the rows: more than that are no outliers
_DAMAGED = 1e6  # a magnitude over the quartiles'
_SPAN = 16384  # bytes
_FEWEST_DAMAGED = 32


def outlying(seen: Survey) -> Iterator[Finding]:
    """Rows whose norm is far above those of the others, told from a single value; and stretches of wild
    values between good ones.
    """
    rows, damaged = outliers(seen)
    if damaged:
        yield told(
            seen,
            damaged,
            "damaged",
            "error",
            "has a stretch of wild values between good ones",
            "have stretches of wild values between good ones",
            reason="Random bytes read as numbers are of every magnitude, and here they stand side by side: "
            "the file was damaged on disk or on its way, or memory was overwritten.",
            advice="Get the file again, and compare its hash with the source's.",
            confidence="likely",
        )
    if rows:
        yield told(
            seen,
            rows,
            "outlier",
            "warning",
            "has a row far larger than its others",
            "have rows far larger than their others",
            reason="Rows of one matrix have norms of like size. One that is tens of times larger than the "
            "median dominates whatever reads the layer.",
            advice="Look at the row on the parameter's page, and at the same row in an earlier checkpoint.",
            confidence="likely",
        )


class Outliers(NamedTuple):
    """Rows of a survey with a row, or with a stretch of values, that lies far outside the rest: in words."""

    rows: dict[int, str]
    damaged: dict[int, str]


def outliers(seen: Survey) -> Outliers:
    """What ``outlying`` tells of; found once a survey."""
    return seen.once(_outliers)


def _outliers(seen: Survey) -> Outliers:
    large = seen.weighty & seen.matrices & (seen.figure("numel") >= _LARGE)
    found = Outliers({}, {})
    if not bool(large.any()):
        return found
    largest = seen.figure("max_abs")
    bad = seen.figure("nans") + seen.figure("posinfs") + seen.figure("neginfs")
    usual = torch.maximum(seen.quantile(0.75).abs(), seen.quantile(0.25).abs())
    wild = (bad > 0) | ((largest > _DAMAGED * usual) & (usual > 0))
    limits = numbers(_DAMAGED * usual)
    for row in seen.those(large & wild):
        if words := _stretch(seen.values(row), limits[row]):
            found.damaged[row] = words
    tall = seen.layouts.where(lambda kind: (kind.sizes or (0,))[0] >= _FEWEST_ROWS)
    for row in seen.those(large & ~wild & tall & (largest > _PEAK * seen.figure("rms"))):
        if words := _row(seen.values(row)):
            found.rows[row] = words
    return found


def _row(tensor: Tensor) -> str:
    matrix = tensor.reshape(tensor.shape[0], -1)
    norms = torch.linalg.vector_norm(matrix, dim=1, dtype=torch.promote_types(matrix.dtype, torch.float32))
    level = norms[norms > 0].double().log2().cpu()
    if len(level) < _FEWEST_ROWS:
        return ""
    ordered = level.sort(descending=True).values
    most = max(1, int(_SHARE * len(norms)))
    count = 1 + int((ordered[:most] - ordered[1 : most + 1]).argmax())
    middle = level.median()
    if ordered[count - 1] - ordered[count] < math.log2(_GAP) or ordered[count - 1] - middle < math.log2(_ROW):
        return ""
    worst = int(norms.argmax())
    factor = 2.0 ** float(ordered[0] - middle)
    values = matrix[worst].abs()
    more = "" if count == 1 else f", and {count - 1} more"
    if float(values.max()) > 0.99 * float(norms[worst]):
        place = int(values.argmax())
        return f"row {worst:,} by its value {place:,}, {float(matrix[worst, place]):.4g}{more}"
    return f"row {worst:,}, {factor:,.0f} times the median{more}"


def _stretch(tensor: Tensor, limit: float) -> str:
    """Where the wild values are, if they lie close together and good ones are around them."""
    flat = tensor.reshape(-1)
    wild = ~(flat.abs() <= limit)
    count = int(wild.sum())
    if count < 2 or count > len(flat) // 2:
        return ""
    places = wild.nonzero().flatten()
    first, last = int(places[0]), int(places[-1]) + 1
    size = (last - first) * tensor.element_size()
    if size > min(_SPAN, len(flat) * tensor.element_size() // 2) or last - first > 8 * count:
        return ""
    if last - first < _FEWEST_DAMAGED:
        return ""
    return f"{count:,} of the values {first:,} to {last - 1:,} ({size:,} bytes)"


def one_signed(seen: Survey) -> Iterator[Finding]:
    """Matrices of weights without a value of one of the signs."""
    low, high = seen.column("min"), seen.column("max")
    least, most = seen.figure("min"), seen.figure("max")
    rows = seen.those(
        seen.weighty
        & seen.matrices
        & seen.named_like(WEIGHT)
        & (seen.figure("numel") >= _LARGE)
        & ((least > 0) | (most < 0))
        & (least < most)
    )
    found = {
        row: f"all {'positive' if low[row] > 0 else 'negative'}, {low[row]:.4g} to {high[row]:.4g}"
        for row in rows
    }
    if found:
        yield told(
            seen,
            found,
            "one-signed",
            "warning",
            "has weights of one sign alone",
            "have weights of one sign alone",
            reason="Initialisation draws both signs, and training keeps them: a constant was added, an "
            "absolute value or an unsigned type stands in between.",
            advice="Look at how it was loaded or converted; a constrained layer is meant so.",
            confidence="likely",
        )
