"""Values that are not finite."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pyparam._base.words import plural
from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey

_BOUND = re.compile(r"(^|[._])(min|max|low|high|lower|upper|bound|limit|clamp|clip)[^.]*$", re.I)


def nonfinite(seen: Survey) -> Iterator[Finding]:
    """NaNs and infinities.

    Two things are infinite on purpose: a mask, whose finite values are all zero beside negative infinities,
    and a bound that bounds nothing, a single number in a buffer or under a name that says so.
    """
    if not seen.stats.nonfinite():
        return
    nans, above, below = (seen.column(name) for name in ("nans", "posinfs", "neginfs"))
    largest, numel = seen.column("max_abs"), seen.column("numel")
    rows = []
    details = {}
    for row in seen.rows:
        if not nans[row] + above[row] + below[row]:
            continue
        is_mask = not nans[row] and not above[row] and largest[row] == 0 and seen.is_matrix(row)
        is_bound = (
            numel[row] == 1
            and not nans[row]
            and (seen.is_buffer[row] or _BOUND.search(seen.names[row]) is not None)
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
    )
