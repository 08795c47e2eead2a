"""Buffers: running statistics that cannot be, and frequencies that are none."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from statistics import median

from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey
from pyparam._findings.telling import told

_RUNNING_VAR = re.compile(r"(^|\.)running_var$")
# Inverse frequencies of rotary embeddings: positive and at most 1 (a scaling makes them smaller).
_FREQUENCIES = re.compile(r"(^|[._])inv_freq$")
# Tables of a rotary embedding's cosines and sines: a scaling makes them a little longer than 1.
_WAVES = re.compile(r"(^|[._])(cos|sin)(_cached|_cache)?$")
_LONGEST_WAVE = 4.0
_POSITIONS = re.compile(r"(^|\.)position_ids$")
_LAST_POSITION = 2.0**31
_COUNTS = re.compile(r"(^|\.)num_batches_tracked$")
_RUNNING = re.compile(r"(^|\.)running_(mean|var)$")
# What no activations have, whatever the others of the model are: their squares leave float16 a million times.
_ABSURD = 1e12
# How far a running variance may lie from the median of the model's, as a power of two: activations of one
# network differ by thousands, not by hundreds of thousands.
_OCTAVES = 16.0
_SPREADS = 6.0
_FEWEST = 3

_BUFFER = ("buffer", "buffers")


def buffers(seen: Survey) -> Iterator[Finding]:
    yield from _variances(seen)
    yield from _unseen(seen)
    yield from _frequencies(seen)
    yield from _waves(seen)
    yield from _positions(seen)


def _variances(seen: Survey) -> Iterator[Finding]:
    low, high, rms = seen.column("min"), seen.column("max"), seen.column("rms")
    rows = seen.those(seen.named_like(_RUNNING_VAR))
    negative = {row: f"down to {low[row]:.4g}" for row in rows if low[row] < 0}
    if negative:
        yield told(
            seen,
            negative,
            "running-statistics",
            "error",
            "is a running variance below zero",
            "are running variances below zero",
            reason="A variance is never negative: its root makes every output NaN in evaluation.",
            advice="Load it again, or estimate it anew: reset_running_stats() and a pass over training data "
            "in train mode.",
            noun=_BUFFER,
        )
    counts = {
        row: f"{low[row]:.4g}" for row in seen.those(seen.named_like(_COUNTS) & (seen.figure("min") < 0))
    }
    if counts:
        yield told(
            seen,
            counts,
            "running-statistics",
            "error",
            "counts fewer than no batches",
            "count fewer than no batches",
            reason="Nothing filled it after it was given memory, and with momentum=None it says how far the "
            "running statistics move.",
            advice="reset_running_stats(), then a pass over training data in train mode, or load it again.",
            noun=_BUFFER,
        )
    most = seen.column("max_abs")
    odd = {row: "0 everywhere" for row in rows if low[row] == high[row] == 0}
    odd |= {
        row: f"up to {most[row]:.4g}"
        for row in seen.those(seen.named_like(_RUNNING) & (seen.figure("max_abs") > _ABSURD))
        if row not in negative
    }
    level = {row: math.log2(rms[row]) for row in rows if rms[row] > 0 and row not in negative}
    if len(level) >= _FEWEST:
        middle = median(level.values())
        limit = max(_OCTAVES, _SPREADS * median(abs(value - middle) for value in level.values()))
        odd |= {
            row: f"2^{value - middle:.0f} times the median of {len(level):,}"
            for row, value in level.items()
            if value - middle > limit and row not in odd
        }
    if odd:
        yield told(
            seen,
            odd,
            "running-statistics",
            "warning",
            "is a running statistic that is hardly one",
            "are running statistics that are hardly ones",
            reason="In evaluation a norm divides by its root: outputs are lost in noise where it is far too "
            "large, and multiplied by 1 / sqrt(eps) where it is zero.",
            advice="Estimate it anew: reset_running_stats() and a pass over training data in train mode.",
            confidence="likely",
            noun=_BUFFER,
        )


def _unseen(seen: Survey) -> Iterator[Finding]:
    """Batch norms that saw no batch, where others did or where their own gain was trained."""
    counters = seen.those(seen.named_like(_COUNTS))
    if not counters:
        return
    low, high = seen.column("min"), seen.column("max")
    at = {seen.names[row]: row for row in seen.rows}
    saw, unseen = 0, {}
    for row in counters:
        prefix = seen.names[row].rpartition(".")[0]
        if high[row] > 0:
            saw += 1
            continue
        mean, variance = (
            at.get(f"{prefix}.{key}" if prefix else key) for key in ("running_mean", "running_var")
        )
        if mean is None or variance is None:
            continue
        if low[mean] == high[mean] == 0 and low[variance] == high[variance] == 1:
            gain = at.get(f"{prefix}.weight" if prefix else "weight")
            unseen[mean] = gain is not None and low[gain] < high[gain]
    rows = {row: "" for row, trained in unseen.items() if saw or trained}
    if rows:
        yield told(
            seen,
            rows,
            "running-statistics",
            "warning",
            "is of a batch norm that never saw a batch",
            "are of batch norms that never saw a batch",
            reason="Its running mean is 0 and its variance 1, as when it was made, though the model was "
            "trained: in evaluation it does not normalise.",
            advice="Look whether the layer is used in train mode; else estimate its statistics with a pass "
            "over training data.",
            noun=_BUFFER,
        )


def _frequencies(seen: Survey) -> Iterator[Finding]:
    low, high = seen.column("min"), seen.column("max")
    rows = {
        row: _between(low[row], high[row])
        for row in seen.those(seen.named_like(_FREQUENCIES))
        if not (low[row] > 0 and high[row] <= 1)
    }
    if rows:
        yield _never_filled(
            seen, rows, "holds no rotary frequencies", "hold no rotary frequencies",
            "Inverse frequencies lie above 0 and at most at 1.",
        )  # fmt: skip


def _waves(seen: Survey) -> Iterator[Finding]:
    low, high = seen.column("min"), seen.column("max")
    rows = {}
    for row in seen.those(seen.named_like(_WAVES) & seen.buffers & seen.floats):
        found = _WAVES.search(seen.names[row])
        # Sines of the one position 0 are zero; cosines never are.
        nothing = low[row] == high[row] == 0 and found is not None and found[2] == "cos"
        if nothing or max(-low[row], high[row]) > _LONGEST_WAVE:
            rows[row] = _between(low[row], high[row])
    if rows:
        yield _never_filled(
            seen, rows, "holds no cosines or sines", "hold no cosines or sines",
            "The tables of a rotary embedding lie between -1 and 1, and cosines are not zero throughout.",
        )  # fmt: skip


def _positions(seen: Survey) -> Iterator[Finding]:
    low, high = seen.column("min"), seen.column("max")
    rows = {
        row: _between(low[row], high[row])
        for row in seen.those(seen.named_like(_POSITIONS))
        if (low[row] < 0 or high[row] > _LAST_POSITION or (low[row] == high[row] and _many(seen, row)))
    }
    if rows:
        yield _never_filled(
            seen, rows, "holds no positions", "hold no positions",
            "Positions count up from 0 (or from the padding's).",
        )  # fmt: skip


def _between(low: float, high: float) -> str:
    return f"from {low:.4g} to {high:.4g}"


def _many(seen: Survey, row: int) -> bool:
    sizes = seen.layouts[row].sizes
    return sizes is not None and math.prod(sizes) > 1


def _never_filled(seen: Survey, rows: dict[int, str], one: str, many: str, what: str) -> Finding:
    return told(
        seen,
        rows,
        "never-initialised",
        "error",
        one,
        many,
        reason=f"{what} This buffer is often not saved with the model, and nothing filled it after the model "
        "was made on the meta device and given memory by to_empty.",
        advice="Compute it again as the module's __init__ does, after to_empty and before the first use.",
        confidence="likely",
        noun=_BUFFER,
    )
