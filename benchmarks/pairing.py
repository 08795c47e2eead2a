"""Times two ways to do one thing, alternately in one run, and prints their ratio."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pair:
    """Median seconds of both sides over the same rounds."""

    ours: float
    peer: float
    floor: float | None

    @property
    def ratio(self) -> float:
        return self.peer / self.ours if self.ours > 0 else float("inf")


def seconds(function: Callable[[], Any]) -> float:
    """One call. What it returns is freed after the clock stops."""
    begin = time.perf_counter()
    result = function()
    end = time.perf_counter()
    del result
    return end - begin


def readable(value: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def keep(ours: float, peer: float) -> None:
    """Adds a figure to the file that PYPARAM_FIGURES names: see ``recorded.py``."""
    path = os.environ.get("PYPARAM_FIGURES")
    if path:
        # "benchmarks/bench_walk.py::test_name (call)", as pytest says.
        file, colons, test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0].partition("::")
        name = file.rpartition("/")[2] + colons + test
        ratio = peer / ours if ours > 0 else float("inf")
        with open(path, "a", encoding="utf-8") as lines:
            lines.write(json.dumps({"name": name, "ours": ours, "peer": peer, "ratio": ratio}) + "\n")


def affordable(rounds: int, seconds_a_round: float) -> int:
    """Of so many rounds those that PYPARAM_SECONDS leaves time for, and one at the least.

    Several processes, as recorded.py runs, are rounds too.
    """
    limit = os.environ.get("PYPARAM_SECONDS")
    if limit is None or seconds_a_round <= 0:
        return rounds
    return max(1, min(rounds, int(float(limit) / seconds_a_round)))


def versus(
    benchmark: Any,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    *,
    rounds: int = 20,
    floor: float | None = None,
) -> Pair:
    """Times ``ours`` and ``peer`` alternately and prints median peer / median ours beside the floor.

    Both are called once before the clock starts. The order within a round swaps, so that neither side
    always runs in the caches the other left, and the collector stays as users have it. Nothing is asserted
    about time. ``benchmark`` is pytest-benchmark's fixture, whose report gets our side's rounds; ``None``
    leaves it out. Fails with ValueError if ``rounds`` is not positive.
    """
    if rounds < 1:
        raise ValueError(f"versus: rounds must be positive, got {rounds}")
    rounds = affordable(rounds, seconds(ours) + seconds(peer))
    ours_times: list[float] = []
    peer_times: list[float] = []
    for i in range(rounds):
        for side in ("ours", "peer") if i % 2 == 0 else ("peer", "ours"):
            if side == "ours":
                ours_times.append(seconds(ours))
            else:
                peer_times.append(seconds(peer))
    pair = Pair(statistics.median(ours_times), statistics.median(peer_times), floor)
    keep(pair.ours, pair.peer)
    name = "versus"
    if benchmark is not None:
        name = benchmark.name
        benchmark.extra_info.update(ratio=round(pair.ratio, 3), peer=pair.peer, floor=floor)
        # pytest-benchmark's own table takes rounds of its own. Without one its fixture has to be used still.
        benchmark.pedantic(ours if benchmark.enabled else int, rounds=min(rounds, 5), iterations=1)
    aim = "" if floor is None else f" (floor {floor:g}×)"
    print(f"\n{name}: {readable(pair.ours)} against {readable(pair.peer)}: {pair.ratio:.3g}×{aim}")
    return pair
