"""An optimizer's state: second moments that cannot be, or that stand still."""

from __future__ import annotations

from collections.abc import Iterator

from pyparam._findings.finding import Finding
from pyparam._findings.parts import SECOND_MOMENTS
from pyparam._findings.survey import Survey
from pyparam._findings.telling import told
from pyparam._measure.optimizer_state import names_in

_FIRST = ("exp_avg", "momentum_buffer", "grad_avg")


def moments(seen: Survey) -> Iterator[Finding]:
    """Second moments below zero; zero throughout beside a first moment that is not; and parameters whose
    moments are all zero where those of others are not.

    A moment is held against moments of its kind alone, never against weights.
    """
    low, high, largest = seen.column("min"), seen.column("max"), seen.column("max_abs")
    nans, above, below = (seen.column(name) for name in ("nans", "posinfs", "neginfs"))
    at: dict[tuple[str, str], int] = {}
    seconds: list[int] = []
    for row in seen.those(seen.of_part("optimizer")):
        prefix, _, quantity = seen.names[row].rpartition(".")
        at[prefix, quantity] = row
        if quantity in SECOND_MOMENTS:
            seconds.append(row)
    called = names_in(seen.source) if seconds else {}

    def of(row: int) -> str:
        name = called.get(seen.names[row].rpartition(".")[0])
        return f" (of {name})" if name else ""

    negative = {row: f"down to {low[row]:.3g}{of(row)}" for row in seconds if low[row] < 0}
    if negative:
        yield told(
            seen,
            negative,
            "second-moment",
            "error",
            "has second moments below zero",
            "have second moments below zero",
            reason="A second moment is a mean of squares, and its root is taken in every step: below zero it "
            "makes the weight NaN. A wrong dtype, a bad merge of shards or a damaged file did it.",
            advice="Do not resume from this state: take an earlier checkpoint, or start the optimizer anew "
            "with a short warm-up.",
        )
    lost: dict[int, str] = {}
    still: dict[int, str] = {}
    for row in seconds:
        if not low[row] == high[row] == 0 or nans[row] + above[row] + below[row]:
            continue
        prefix = seen.names[row].rpartition(".")[0]
        first = next((at[prefix, name] for name in _FIRST if (prefix, name) in at), None)
        if first is not None and largest[first] > 0:
            lost[row] = f"beside {seen.names[first]} of up to {largest[first]:.3g}{of(row)}"
        else:
            still[row] = of(row).strip(" ()")
    if lost:
        yield told(
            seen,
            lost,
            "second-moment",
            "error",
            "is a second moment of zeros beside a first that is not",
            "are second moments of zeros beside first ones that are not",
            reason="The next step divides by the root of it and is as large as the first moment over eps. "
            "It was reset or lost, or underflowed in a narrow type.",
            advice="Load this parameter's state from a good checkpoint, or clear both moments and warm up.",
            confidence="likely",
        )
    if still and len(still) < len(seconds) - len(lost):
        yield told(
            seen,
            still,
            "second-moment",
            "warning",
            "never got a gradient other than zero",
            "never got a gradient other than zero",
            reason="Both moments are zero where those of other parameters are not: the optimizer steps it, "
            "and nothing ever moves it. A branch cut off by detach or a mask, or a layer that is not used.",
            advice="Look at where its output goes; if it is not used, take it out of the optimizer.",
            confidence="likely",
            noun=("second moment", "second moments"),
        )
