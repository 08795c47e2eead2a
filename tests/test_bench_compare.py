"""What is told of benchmarks that are run again, on planted figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import recorded
from benchmarks.recorded import Figure


def figure(*ratios: float) -> Figure:
    lines = [[{"name": "a", "ours": 1.0, "peer": ratio, "ratio": ratio}] for ratio in ratios]
    return recorded.together(lines, [(0.5, 0.01)] * len(ratios))["a"]


def test_a_figure_is_the_median_of_the_processes_with_its_spread_and_the_machines_state() -> None:
    lines = [
        [
            {"name": "a", "ours": 1.0, "peer": p, "ratio": p},
            {"name": "b", "ours": 2.0, "peer": 4.0, "ratio": 2.0},
        ]
        for p in (5.0, 9.0, 6.0)
    ]
    found = recorded.together(lines, [(0.1, 0.0), (3.25, 0.02), (1.0, 0.001)])
    assert found["a"]["ratio"] == 6.0
    assert found["a"]["ratios"] == found["a"]["peer"] == [5.0, 9.0, 6.0]
    assert found["a"]["load"] == found["b"]["load"] == [0.1, 3.25, 1.0]
    assert found["a"]["steal"] == [0.0, 0.02, 0.001]
    assert recorded.spread(found["a"]) == "6x (5 to 9)"


def test_several_figures_of_one_test_stay_apart() -> None:
    line = {"name": "a", "ours": 1.0, "peer": 2.0, "ratio": 2.0}
    found = recorded.together([[line, {**line, "ratio": 7.0}]] * 2, [(0.0, 0.0)] * 2)
    assert {name: row["ratios"] for name, row in found.items()} == {"a": [2.0, 2.0], "a #2": [7.0, 7.0]}


@pytest.mark.parametrize(
    ("now", "falls"), [(10.0, False), (9.1, False), (9.0, True), (5.0, True), (20.0, False)]
)
def test_a_fall_by_a_tenth_is_told(now: float, falls: bool) -> None:
    lines, fallen = recorded.compare({"a": figure(now)}, {"a": figure(10.0)})
    assert bool(fallen) == falls
    assert f"{now / 10 - 1:+.1%}" in lines[0]
    if falls:
        assert fallen[0].startswith(f"a fell by {1 - now / 10:.1%}: {now:.3g}x")


def test_spreads_that_overlap_are_told_as_such() -> None:
    before = {"a": figure(8.0, 10.0, 12.0)}
    _, (noisy,) = recorded.compare({"a": figure(6.0, 7.0, 8.5)}, before)
    _, (sure,) = recorded.compare({"a": figure(6.0, 7.0, 7.9)}, before)
    assert noisy.endswith("as 10x (8 to 12); the spreads overlap")
    assert sure.endswith("as 10x (8 to 12)")


def test_what_was_not_recorded_is_no_fall() -> None:
    lines, fallen = recorded.compare({"new": figure(1.0)}, {"a": figure(10.0)})
    assert lines == ["new: 1x (1 to 1), not recorded before"]
    assert fallen == []


def test_steal_is_the_part_of_all_time_that_others_took() -> None:
    before = "cpu  100 0 50 800 0 0 0 10 5 5\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
    after = "cpu  150 0 60 815 0 0 0 35 90 90\ncpu0 9 9 9 9 9 9 9 9 9 9\n"
    assert recorded.steal(before, after) == 0.25
    assert recorded.steal(before, before) == 0


def test_figures_of_another_processor_python_or_torch_are_another_machines() -> None:
    told = recorded.machine("processor : 0\nmodel name\t: Some CPU 9\n", 2, "3.11", "2.13.0")
    assert told == "Some CPU 9, 2 cores, Python 3.11, torch 2.13.0"


BENCHMARK = """
import time
from pairing import versus

def test_sleep(benchmark):
    versus(benchmark, lambda: time.sleep({ours}), lambda: time.sleep(0.02), rounds=2)
"""


def test_runs_records_and_compares(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bench = tmp_path / "bench_one.py"
    table = tmp_path / "table.json"
    common = ["--benchmarks", str(bench), "--table", str(table), "--processes", "2"]
    bench.write_text(BENCHMARK.format(ours=0.002))
    assert recorded.main([*common, "--record"]) == 0
    (figures,) = json.loads(table.read_text()).values()
    (row,) = figures.values()
    assert list(figures) == ["bench_one.py::test_sleep"]
    assert len(row["ratios"]) == len(row["load"]) == len(row["steal"]) == 2
    bench.write_text(BENCHMARK.format(ours=0.02))
    assert recorded.main([*common, "--processes", "1"]) == 1
    assert "bench-compare: bench_one.py::test_sleep fell by" in capfd.readouterr().err
    # The record stays what it was.
    assert json.loads(table.read_text()) == {recorded.here(): figures}


def test_a_benchmark_that_fails_ends_it(tmp_path: Path) -> None:
    bench = tmp_path / "bench_one.py"
    bench.write_text("def test_wrong():\n    assert False\n")
    with pytest.raises(SystemExit, match="a benchmark failed, or none was run"):
        recorded.main(["--benchmarks", str(bench), "--processes", "1", "--table", str(tmp_path / "t")])
