"""Writes the recorded figures into README.md and docs/benchmarks.md: what they tell is what was measured.

A figure in those pages is followed by a comment that names it, and the text before the comment, back to the
cell's or the bracket's begin, is written from the record:

    | 9.7× (9.1 to 10.2) <!-- ratio: bench_walk.py::test_bulk[mixture-list(named_parameters)] --> |

``ratio`` is the median over the processes with the least and the largest, ``part`` the same without ×,
``ours`` the median of our side's time. The machine that the pages speak of stands in docs/benchmarks.md as
``<!-- machine: ... -->``, after what it did meanwhile.

    python -m benchmarks.tables             write
    python -m benchmarks.tables --check     end with status 1 if a page tells something else than the record
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path

from benchmarks.pairing import readable
from benchmarks.recorded import RECORD, ROOT, Figure

PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
MACHINE = re.compile(r"[^\n]*<!-- machine: (?P<name>[^\n]+?) -->")
FIGURE = re.compile(
    r"(?P<before>[|(] ?)(?P<text>[^|(<]*(?:\([^|()<]*\))?) ?<!-- (?P<kind>ratio|part|ours): (?P<name>.+?) -->"
)


def digits(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}" if value >= 1 else f"{value:.2f}"


def told(kind: str, figure: Figure) -> str:
    if kind == "ours":
        return readable(statistics.median(figure["ours"]))
    sign = "×" if kind == "ratio" else ""
    least, median, most = (digits(of(figure["ratios"])) for of in (min, statistics.median, max))
    return f"{median}{sign}" if least == most else f"{median}{sign} ({least} to {most})"


def state(figures: dict[str, Figure]) -> str:
    """What the machine did while these figures were taken."""
    loads = [load for figure in figures.values() for load in figure["load"]]
    steals = [steal for figure in figures.values() for steal in figure["steal"]]
    dates = sorted({figure["date"] for figure in figures.values()})
    counts = sorted({len(figure["ratios"]) for figure in figures.values()})
    return (
        f"{' or '.join(map(str, counts))} process{'es' if counts[-1] > 1 else ''}, "
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}, "
        f"load {min(loads):.1f} to {max(loads):.1f}, steal {min(steals):.1%} to {max(steals):.1%}"
    )


def machine_of(text: str) -> str | None:
    found = MACHINE.search(text)
    return found["name"] if found else None


def written(text: str, figures: dict[str, Figure]) -> str:
    """The page with the record's figures. Fails with KeyError naming a figure that was not recorded."""

    def figure(match: re.Match[str]) -> str:
        if match["name"] not in figures:
            raise KeyError(f"no figure {match['name']!r} is recorded: make bench-record")
        value = told(match["kind"], figures[match["name"]])
        return f"{match['before']}{value} <!-- {match['kind']}: {match['name']} -->"

    here = {
        match["name"]: figures[match["name"]] for match in FIGURE.finditer(text) if match["name"] in figures
    }

    def machine(match: re.Match[str]) -> str:
        return f"{state(here or figures)}. <!-- machine: {match['name']} -->"

    return MACHINE.sub(machine, FIGURE.sub(figure, text))


def write(record: Path = RECORD, pages: tuple[Path, ...] = PAGES, *, check: bool = False) -> list[Path]:
    """Writes each page, the last of which names the machine, and gives those that told something else."""
    name = machine_of(pages[-1].read_text(encoding="utf-8"))
    tables = json.loads(record.read_text())
    if name not in tables:
        raise KeyError(f"{pages[-1].name} tells of {name!r}, of which nothing is recorded")
    other = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        new = written(text, tables[name])
        if new != text:
            other.append(page)
            if not check:
                page.write_text(new, encoding="utf-8")
    return other


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--check", action="store_true", help="write nothing")
    check = options.parse_args().check
    other = write(check=check)
    for page in other:
        print(f"{page.name}: {'tells other figures than the record' if check else 'written'}")
    return int(check and bool(other))


if __name__ == "__main__":
    sys.exit(main())
