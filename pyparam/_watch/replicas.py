"""What the ranks that train replicas of a model tell each other: who has a value that is not finite."""

from __future__ import annotations

from typing import Any

import torch

from pyparam._measure.stats import Stats
from pyparam._parts.exchange import minimum
from pyparam._parts.meeting import Meeting
from pyparam._parts.parts import Share

_NOBODY = 2**63 - 1


class Replicas:
    """The ranks of a process group; without one, this process by itself."""

    def __init__(self, group: Any) -> None:
        self._group = group

    def nonfinite(self, stats: Stats) -> dict[str, int | None]:
        """The parameters that are not finite somewhere, in the model's order, and the first rank where."""
        own = stats.nonfinite()
        if self._group is None:
            places = stats.first_nonfinite
            return {name: places[name].rank if name in places else None for name in own}
        import torch.distributed as dist

        # Rows and what has none come to the same names everywhere.
        names = sorted({*stats.names, *stats.missing})
        with Meeting("Monitor", None, names, self._group):
            mine = set(own)
            rank = dist.get_rank()
            bad = torch.tensor(
                [rank if name in mine else _NOBODY for name in names], dtype=torch.int64, device="cpu"
            )
        found = self._least(bad).tolist()
        ranks = {name: rank for name, rank in zip(names, found, strict=True) if rank != _NOBODY}
        order = [name for name in stats.names if name in ranks]
        return {name: ranks[name] for name in (*order, *sorted(set(ranks) - set(order)))}

    def all_finite(self, own: bool) -> bool:
        """Whether all ranks say so."""
        if self._group is None:
            return own
        with Meeting("Monitor", None, "check", self._group):
            pass
        return bool(self._least(torch.tensor([int(own)], dtype=torch.int64, device="cpu"))[0])

    def _least(self, values: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(values), device="cpu")
        return minimum([Share(self._group, rows)], values.unsqueeze(1)).flatten()
