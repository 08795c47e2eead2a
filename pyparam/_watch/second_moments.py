"""Second moments of the few parameters whose step was far longer than those before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from pyparam._measure.measure import measure_strictly
from pyparam._share.readable import read_of
from pyparam._sources import table_of
from pyparam._sources.table import ParamTable
from pyparam._watch.records import Record
from pyparam._watch.rules import UpdateSpike

_LONG = UpdateSpike(factor=2.5)


def second_moments(
    optimizer: Optimizer, model: Any, record: Record, earlier: Sequence[Record]
) -> dict[str, float]:
    """Mean of ``exp_avg_sq`` by name. Reading all of them each time would cost as much as the weights."""
    long = {name for name, _ in _LONG(record, earlier)}
    if not long:
        return {}
    found = []
    for name, parameter in table_of(model):
        state = optimizer.state.get(parameter) if name in long else None
        if state and "exp_avg_sq" in state:
            found.append((name, state["exp_avg_sq"]))
    table = ParamTable([name for name, _ in found], [moment for _, moment in found])
    stats, _ = read_of(table, measure_strictly)
    return dict(zip(stats.names, stats.mean.tolist(), strict=True))
