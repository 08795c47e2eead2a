"""Values that their dtype holds badly, or that half precision would lose."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch

from pyparam._base.words import dtype_name, plural
from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey
from pyparam._measure.bins import LIMIT_TYPES
from pyparam._measure.columns import COUNTS

# Fractions from which it is told. Trained tensors hold some values that matter to nobody, such as the third
# of an attention's biases that softmax cancels: what most values are is what counts.
_SUBNORMAL = 0.1
_SATURATED = 0.01
_LOST = 0.4
_LOW = {torch.float16, torch.bfloat16, *(t for t in LIMIT_TYPES if t.itemsize == 1)}
_FEW_VALUES = 16
_RUNNING = re.compile(r"(^|\.)running_(mean|var)$")
# Added to what a layer gives: where it is so small, it is as good as zero. An attention's key bias, which
# softmax cancels, gets gradients of rounding alone.
_ADDED = re.compile(r"(^|[._])bias[^.]*$")


def precision(seen: Survey) -> Iterator[Finding]:
    """Subnormal and saturated values; float32 values beyond float16."""
    yield from _subnormal(seen)
    seen.let_go(between_checks=True)
    yield from _saturated(seen)
    seen.let_go(between_checks=True)
    yield from _beyond_half(seen)


def _subnormal(seen: Survey) -> Iterator[Finding]:
    # Complex numbers count two values an element.
    values = seen.layouts.each(lambda kind: 2 if kind.dtype.is_complex else 1)
    nonzero = seen.figure("numel") * values - seen.figure("zeros")
    limit = seen.layouts.each(lambda kind: _LOST if len(kind.sizes or ()) < 2 else _SUBNORMAL, torch.float64)
    many = (nonzero >= _FEW_VALUES) & (seen.figure("subnormals") > limit * nonzero)
    told = {}
    for row in seen.those(~seen.statistic & ~seen.named_like(_ADDED) & many):
        share = int(seen.figure("subnormals")[row]) / int(nonzero[row])
        told[row] = f"{share:.0%} of its values are subnormal in {dtype_name(seen.layouts[row].dtype)}"
    if told:
        yield _finding(
            seen,
            told,
            "lies below the normal range of its dtype",
            "lie below the normal range of their dtypes",
            "Subnormal numbers have fewer significant bits the smaller they are, and many kernels take them "
            "for zero.",
            "Keep these in a wider type, or store them with a scale.",
        )


def _saturated(seen: Survey) -> Iterator[Finding]:
    largest, numel = seen.column("max_abs"), seen.column("numel")
    ends = seen.layouts.each(
        lambda kind: torch.finfo(kind.dtype).max if kind.dtype in _LOW else -1.0, torch.float64
    )
    full = (seen.figure("max_abs") == ends) & (seen.figure("numel") >= 2)
    told = {}
    for row in seen.those(~seen.statistic & full):
        dtype = seen.layouts[row].dtype
        histogram = seen.stats.histogram(seen.stats.names[int(seen.at[row])])
        # A value that float8 and bfloat16 have stands alone in its bin; float16's last has 65,280 to 65,504.
        inner = torch.minimum(histogram.lower.abs(), histogram.upper.abs())
        outer = torch.maximum(histogram.lower.abs(), histogram.upper.abs())
        at_most = int(histogram.counts[(inner <= largest[row]) & (outer > largest[row])].sum())
        # Weights that were quantised with a scale reach the last number by design, a few of them.
        if dtype.itemsize == 1 and at_most <= _SATURATED * numel[row]:
            continue
        told[row] = f"{at_most:,} of {numel[row]:,} at {largest[row]:,.6g}, the largest {dtype_name(dtype)}"
    if told:
        yield _finding(
            seen,
            told,
            "is cut off at the largest number of its dtype",
            "are cut off at the largest number of their dtypes",
            "Values that did not fit were set to the largest that does: what they were is lost.",
            "Convert again from the original, with a scale or to a wider type.",
        )


def _beyond_half(seen: Survey) -> Iterator[Finding]:
    if not len(seen.stats):
        return
    zeroed, _, overflowing = (seen.spread(fate[:-1]) for fate in seen.stats._fates(torch.float16))
    running = seen.of_part("model") & seen.named_like(_RUNNING)
    wide = seen.layouts.where(lambda kind: kind.dtype in (torch.float32, torch.float64))
    some = seen.measured & wide & (~seen.statistic | running) & ((zeroed > 0) | (overflowing > 0))
    rows = some.nonzero().flatten()  # mostly few: what follows is of them alone
    counts = dict(zip(COUNTS, seen.stats._counts[seen.at[rows]].unbind(1), strict=True))
    values = (counts["finite"] + counts["nans"] + counts["posinfs"] + counts["neginfs"]).double()
    numel = counts["numel"]
    overflow = overflowing[rows] / values
    lost = (zeroed[rows] / values) * numel / (numel - counts["zeros"]).clamp(min=1)
    beyond = overflow > 0
    below = ~(running | seen.named_like(_ADDED))[rows] & (lost > _LOST) & (numel >= _FEW_VALUES)
    told = {}
    for i in ((numel >= 2) & (beyond | below)).nonzero().flatten().tolist():
        if bool(beyond[i]):
            words = f"{_share(float(overflow[i]))} beyond 65,504, infinite in float16"
        else:
            words = f"{_share(float(lost[i]))} below 3e-8, zero in float16"
        told[int(rows[i])] = words
    if told:
        yield _finding(
            seen,
            told,
            "does not fit into half precision",
            "do not fit into half precision",
            "Converted to float16, as for inference or mixed precision, these values would be lost.",
            "Use bfloat16, which has the range with fewer digits, or leave these in float32.",
        )


def _finding(seen: Survey, told: dict[int, str], one: str, many: str, reason: str, advice: str) -> Finding:
    rows = sorted(told)
    names = seen.names
    title = f"{plural(len(rows), 'parameter')} {one if len(rows) == 1 else many}"
    return Finding(
        "range", "warning", title, reason, seen.take(rows), {names[row]: told[row] for row in rows}, advice
    )


def _share(fraction: float) -> str:
    return f"{fraction:.1%}" if fraction >= 0.001 else f"{fraction:.1g} of all"
