"""Runs the benchmarks in several processes and compares each figure with this machine's last recorded one.

A figure is the ratio of the peer's time to ours, the median over the processes; its spread is from the least
to the largest. What the machine did meanwhile is kept with it: its load, and the part of the processors' time
that other virtual machines took (steal). A figure that fell by a tenth is told, and ends with status 1.

    python benchmarks/recorded.py                     compare
    python benchmarks/recorded.py --record            keep the figures as those to compare with
    python benchmarks/recorded.py -- -k "walk"        a part: what follows is for pytest
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TypedDict

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benchmarks" / "recorded.json"
FALL = 0.1


class Figure(TypedDict):
    """One figure: lists have a value a process."""

    ratio: float
    ratios: list[float]
    ours: list[float]
    peer: list[float]
    date: str
    load: list[float]
    steal: list[float]


def machine(cpuinfo: str, cores: int | None, python: str, torch: str) -> str:
    """What figures of two runs must have in common."""
    model = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.M)
    processor = model[1].strip() if model else platform.machine()
    return f"{processor}, {cores} cores, Python {python}, torch {torch}"


def here() -> str:
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    name = machine(
        cpuinfo.read_text() if cpuinfo.is_file() else "",
        os.cpu_count(),
        ".".join(platform.python_version_tuple()[:2]),
        torch.__version__.partition("+")[0],
    )
    return f"{name}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else name


def steal(before: str, after: str) -> float:
    """The part of all processors' time between two readings of /proc/stat that other machines took."""

    def ticks(text: str) -> list[int]:
        # user nice system idle iowait irq softirq steal; guests' time, which follows, is in the first two.
        return [int(word) for word in text.splitlines()[0].split()[1:9]]

    passed = [b - a for a, b in zip(ticks(before), ticks(after), strict=True)]
    return passed[7] / max(sum(passed), 1)


def clock() -> str:
    stat = Path("/proc/stat")
    return stat.read_text() if stat.is_file() else "cpu 0 0 0 0 0 0 0 0"


def together(processes: list[list[dict[str, Any]]], states: list[tuple[float, float]]) -> dict[str, Figure]:
    """The figures of all processes by name. ``states``: load and steal of each process."""
    rows: dict[str, list[tuple[dict[str, Any], tuple[float, float]]]] = {}
    for lines, state in zip(processes, states, strict=True):
        met: dict[str, int] = {}
        for line in lines:
            # A test may give several.
            count = met[line["name"]] = met.get(line["name"], 0) + 1
            name = line["name"] if count == 1 else f"{line['name']} #{count}"
            rows.setdefault(name, []).append((line, state))
    return {
        name: Figure(
            ratio=round(statistics.median(line["ratio"] for line, _ in those), 3),
            ratios=[round(line["ratio"], 3) for line, _ in those],
            ours=[float(f"{line['ours']:.4g}") for line, _ in those],
            peer=[float(f"{line['peer']:.4g}") for line, _ in those],
            date=time.strftime("%Y-%m-%d"),
            load=[round(load, 2) for _, (load, _) in those],
            steal=[round(stolen, 4) for _, (_, stolen) in those],
        )
        for name, those in rows.items()
    }


def spread(figure: Figure) -> str:
    return f"{figure['ratio']:.3g}x ({min(figure['ratios']):.3g} to {max(figure['ratios']):.3g})"


def compare(figures: dict[str, Figure], last: dict[str, Figure]) -> tuple[list[str], list[str]]:
    """A line for each figure, and one for each that fell by a tenth or more."""
    lines, fallen = [], []
    for name, figure in figures.items():
        if name not in last:
            lines.append(f"{name}: {spread(figure)}, not recorded before")
            continue
        before = last[name]
        change = figure["ratio"] / before["ratio"] - 1
        lines.append(f"{name}: {spread(figure)}, before {spread(before)}: {change:+.1%}")
        if figure["ratio"] <= (1 - FALL) * before["ratio"]:
            apart = max(figure["ratios"]) < min(before["ratios"])
            fallen.append(
                f"{name} fell by {-change:.1%}: {spread(figure)}, "
                f"recorded {before['date']} as {spread(before)}{'' if apart else '; the spreads overlap'}"
            )
    return lines, fallen


def run(
    benchmarks: list[Path], pytest_arguments: list[str]
) -> tuple[list[dict[str, Any]], tuple[float, float]]:
    """One process of the files or tests that these paths name: its figures, and load and steal meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "lines")
        command = [
            *(sys.executable, "-m", "pytest", "-p", "pytest_benchmark.plugin", "--benchmark-disable"),
            *("-o", "python_files=bench_*.py", *map(str, benchmarks), *pytest_arguments),
        ]
        # Whatever else is installed may register plugins.
        environment = {**os.environ, "PYPARAM_FIGURES": str(lines), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        environment.setdefault("PYPARAM_SECONDS", "0.5")  # for the rounds of one figure
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
        )
        before = clock()
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
        state = os.getloadavg()[0], steal(before, clock())
        if done.returncode:
            print(done.stdout[-5000:], done.stderr[-5000:], file=sys.stderr)
            sys.exit("bench-compare: a benchmark failed, or none was run")
        if not lines.is_file():
            sys.exit("bench-compare: no benchmark that was run gives a figure")
        return [json.loads(line) for line in lines.read_text().splitlines()], state


def main(arguments: list[str] | None = None) -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--record", action="store_true", help="keep the figures")
    options.add_argument("--processes", type=int, default=5, help="how many (5)")
    options.add_argument("--table", type=Path, default=RECORD, help="where figures are kept")
    options.add_argument("--benchmarks", type=Path, default=ROOT / "benchmarks", help="a folder or a file")
    options.add_argument("pytest", nargs="*", help="for pytest")
    asked = options.parse_args(arguments)
    if asked.processes < 1:
        options.error(f"--processes must be positive, got {asked.processes}")
    ran = [run([asked.benchmarks], asked.pytest)]
    folder = asked.benchmarks if asked.benchmarks.is_dir() else asked.benchmarks.parent
    # What gave no figure once gives none again.
    again = [folder / name for name in dict.fromkeys(line["name"] for line in ran[0][0])]
    ran += [run(again, asked.pytest) for _ in range(asked.processes - 1)]
    figures = together([lines for lines, _ in ran], [state for _, state in ran])
    tables = json.loads(asked.table.read_text()) if asked.table.is_file() else {}
    name = here()
    print(f"{name}; {asked.processes} processes")
    print(f"load {[round(load, 1) for _, (load, _) in ran]}, steal {[f'{s:.1%}' for _, (_, s) in ran]}")
    if name not in tables:
        print("nothing is recorded for this machine, so nothing is compared")
    lines, fallen = compare(figures, tables.get(name, {}))
    print("\n".join(lines))
    if asked.record:
        # Those that were not run stay as they are.
        tables[name] = {**tables.get(name, {}), **figures}
        asked.table.write_text(json.dumps(tables, indent=1, sort_keys=True) + "\n")
        print(f"recorded in {asked.table}")
        return 0
    for line in fallen:
        print(f"bench-compare: {line}", file=sys.stderr)
    return int(bool(fallen))


if __name__ == "__main__":
    sys.exit(main())
