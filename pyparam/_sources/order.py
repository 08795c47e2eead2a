"""Natural order of names: what someone who numbers blocks 0 to 10 means by it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from pyparam._base.native import _C

_DIGITS = re.compile(r"\d+", re.ASCII)
# Numbers compare by value where they are all as long as this: longer ones than any model has.
_WIDTH = 20


def natural(names: Iterable[str]) -> list[str]:
    """Sorted with runs of digits by their value: "h.2" before "h.10"."""
    listed = list(names)
    found = _C.natural(listed)
    # Names with halves of surrogate pairs are for Python to compare.
    return sorted(listed, key=natural_key) if found is None else found


def natural_key(name: str) -> str:
    """What to sort a name by."""
    return _DIGITS.sub(_padded, name) if not name.isalpha() else name


def _padded(digits: re.Match[str]) -> str:
    return digits[0].zfill(_WIDTH)


def is_sorted(names: Sequence[str]) -> bool:
    """Whether names stand in the order of their characters, which is how files come that have no order."""
    return all(a <= b for a, b in itertools.pairwise(names))
