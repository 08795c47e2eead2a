"""Tensors that were saved without their values."""

from __future__ import annotations

from collections.abc import Iterator

from pyparam._findings.finding import Finding
from pyparam._findings.survey import Survey
from pyparam._findings.telling import told

_FEWEST = 2


def empty(seen: Survey) -> Iterator[Finding]:
    """Tensors of shape [0] where there must be values: all of a source, or one whose siblings have some.

    Layers may have no elements on purpose (a Linear without inputs), but those have two dimensions, or
    siblings alike.
    """
    sizes = seen.layouts
    nothing = sizes.where(lambda kind: kind.sizes == (0,))
    if not bool(nothing.any()):
        return
    rows = (~seen.statistic).nonzero().flatten().tolist()
    none = [row for row in rows if sizes[row].sizes == (0,)]
    if not none:
        return
    found: dict[int, str] = {}
    if len(none) == len(rows) and len(none) >= _FEWEST:
        found = dict.fromkeys(none, "")
    else:
        filled: dict[str, int] = {}
        for row in rows:
            if (sizes[row].sizes or (0,)) != (0,):
                filled.setdefault(seen.role_of(row), row)
        for row in none:
            sibling = filled.get(seen.role_of(row))
            if sibling is not None:
                found[row] = f"[0], where {seen.names[sibling]} is {list(seen.sizes(sibling))}"
    if found:
        yield told(
            seen,
            found,
            "empty",
            "error",
            "has no values at all",
            "have no values at all",
            reason="A tensor of shape [0] is what a parameter that is split over processes leaves on those "
            "that do not hold it: it was saved without being gathered.",
            advice="Save again with the parameters gathered (DeepSpeed: zero_to_fp32.py, or "
            "stage3_gather_16bit_weights_on_model_save; FSDP: a full state dict).",
        )
