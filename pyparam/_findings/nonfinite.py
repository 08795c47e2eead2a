"""Values that are not finite."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pyparam._base.words import plural
from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey
from pyparam._measure.measure import measure_strictly
from pyparam._share.readable import read_of

_BOUND = re.compile(r"(^|[._])(min|max|low|high|lower|upper|bound|limit|clamp|clip)[^.]*$", re.I)


def nonfinite(seen: Survey) -> Iterator[Finding]:
    """NaNs and infinities.

    Two things are infinite on purpose: a mask, whose finite values are all zero beside negative infinities,
    and a bound that bounds nothing: a single number in a buffer, under a name that says so, or in what a
    training checkpoint holds beside model and optimizer (the best score so far of a callback).
    """
    if not seen.stats.nonfinite():
        return
    nans, above, below = (seen.column(name) for name in ("nans", "posinfs", "neginfs"))
    largest, numel = seen.column("max_abs"), seen.column("numel")
    rows = []
    details = {}
    bad = seen.figure("nans") + seen.figure("posinfs") + seen.figure("neginfs")
    for row in seen.those(bad > 0):
        is_mask = not nans[row] and not above[row] and largest[row] == 0 and seen.is_matrix(row)
        is_bound = (
            numel[row] == 1
            and not nans[row]
            and (
                seen.is_buffer[row]
                or bool(seen.of_part("other")[row])
                or _BOUND.search(seen.names[row]) is not None
            )
        )
        if is_mask or is_bound:
            continue
        rows.append(row)
        counts = [(nans[row], "NaN"), (above[row], "+inf"), (below[row], "-inf")]
        told = ", ".join(f"{count:,} {what}" for count, what in counts if count)
        details[seen.names[row]] = f"{told} of {numel[row]:,}"
    if not rows:
        return
    count = plural(len(rows), "parameter")
    yield Finding(
        "non-finite",
        "error",
        f"{count} {'has' if len(rows) == 1 else 'have'} values that are not finite",
        "A NaN or an infinity spreads to every output that it touches, and from there to every gradient.",
        seen.take(rows),
        details,
        "Go back to the last checkpoint without; Monitor(check='every') names step and layer in the run.",
    )


def gradients(seen: Survey) -> Iterator[Finding]:
    """Gradients of a model that are not finite, where its weights are."""
    if not seen.is_model or seen.stats.nonfinite():
        return
    rows = [row for row in seen.rows if not seen.is_buffer[row] and seen.tensors[row].grad is not None]
    if not rows:
        return
    stats, _ = read_of(seen.table._take(rows), lambda table: measure_strictly(table, grad=True))
    bad = stats.nonfinite()
    if bad:
        yield Finding(
            "non-finite",
            "error",
            f"{plural(len(bad), 'gradient')} {'is' if len(bad) == 1 else 'are'} not finite",
            "The next step of an optimizer writes them into the weights.",
            tuple(bad),
            {name: f"{stats[name].nonfinite:,} of {stats[name].numel:,}" for name in bad},
            "zero_grad() before the next step, or a GradScaler, which leaves such a step out.",
        )
