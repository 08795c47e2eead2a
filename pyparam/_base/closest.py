"""What a person may have meant by a name that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from pyparam._base.wrappers import alike, bare

_MANY = 4000


def missing(name: object, names: Collection[str], holder: str) -> KeyError:
    """The KeyError for a name that ``holder`` lacks, with the closest names it has."""
    if not isinstance(name, str):
        return KeyError(f"{holder} is indexed by names, not by {name!r} ({type(name).__name__})")
    return KeyError(f"no entry named {name!r} in {holder} of {len(names)}{hint(closest(name, names))}")


def closest(name: str, names: Collection[str]) -> list[str]:
    """Up to three of ``names`` that are like ``name``, the closest first.

    A name that is the same but for what a wrapper (``torch.compile``, data parallelism, activation
    checkpointing) puts into it is the closest there is.
    """
    wrapped = alike(name, names)
    if wrapped:
        return wrapped[:3]
    candidates: Collection[str] = names
    if len(names) > _MANY:
        # Comparing with every name of a very large model takes seconds: the attribute is seldom what is
        # wrong.
        ending = name.rsplit(".", 1)[-1]
        likely = [known for known in names if known.endswith(ending)]
        candidates = likely[:_MANY] or list(names)[:_MANY]
    # Compared without what wrappers put into them, which a person leaves out.
    known_as = {bare(known): known for known in candidates}
    return [known_as[close] for close in difflib.get_close_matches(bare(name), known_as, n=3, cutoff=0.6)]


def hint(close: Collection[str]) -> str:
    """The end of a message that says what is close; "" where nothing is."""
    return f"; close to it: {', '.join(map(repr, close))}" if close else ""
