"""Statistics of ranks that hold different parameters, such as the stages of a pipeline, as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyparam._measure.stats import Stats
from pyparam._parts.exchange import gathered
from pyparam._parts.meeting import Meeting


def united(group: Any, own: Callable[[], Stats], verb: str = "measure") -> Stats:
    """The rows of all ranks, by their order in the group and each name once."""
    with Meeting(verb, None, group=group):
        mine = own()
    out: Stats | None = None
    for stats in gathered(mine, group):
        if out is None:
            out = stats
            continue
        known = set(out.names)
        fresh = [i for i, name in enumerate(stats.names) if name not in known]
        if len(fresh) == len(stats):
            out = out + stats
        elif fresh:
            out = out + stats._only(fresh)
    assert out is not None
    return out
