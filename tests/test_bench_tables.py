"""Figures of the benchmarks in README and docs are those of the record."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.recorded import Figure


def figure(*ratios: float, ours: float = 0.004, load: float = 0.5, steal: float = 0.01) -> Figure:
    count = len(ratios)
    return Figure(
        ratio=sorted(ratios)[count // 2],
        ratios=list(ratios),
        ours=[ours] * count,
        peer=[ours * ratio for ratio in ratios],
        date="2026-11-28",
        load=[load] * count,
        steal=[steal] * count,
    )


FIGURES = {"a.py::t[x-list(y)]": figure(9.0, 12.4, 10.1), "b.py::t #2": figure(0.814)}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("| 1× <!-- ratio: a.py::t[x-list(y)] --> |", "| 10× (9 to 12) <!-- ratio: a.py::t[x-list(y)] --> |"),
        (
            "| 8× (7 to 9) <!-- ratio: a.py::t[x-list(y)] --> |",
            "| 10× (9 to 12) <!-- ratio: a.py::t[x-list(y)] --> |",
        ),
        ("| <!-- part: b.py::t #2 --> |", "| 0.81 <!-- part: b.py::t #2 --> |"),
        ("(76 ms <!-- ours: b.py::t #2 -->) | 3× |", "(4 ms <!-- ours: b.py::t #2 -->) | 3× |"),
        (
            "| a | 1 <!-- part: b.py::t #2 --> | 2 <!-- part: b.py::t #2 --> |",
            "| a | 0.81 <!-- part: b.py::t #2 --> | 0.81 <!-- part: b.py::t #2 --> |",
        ),
        ("nothing named | 3× |", "nothing named | 3× |"),
    ],
)
def test_a_figure_stands_before_its_name(before: str, after: str) -> None:
    assert tables.written(before, FIGURES) == after
    assert tables.written(after, FIGURES) == after


def test_the_state_of_the_machine_stands_before_its_name() -> None:
    figures = {
        "a": figure(1.0, 2.0, load=0.25, steal=0.0),
        "b": figure(1.0, 2.0, load=3.5, steal=0.02),
        "no page's": figure(1.0, load=9.0),
    }
    row = "| 1.5× (1 to 2) <!-- ratio: a --> | 1.5 (1 to 2) <!-- part: b --> |"
    text = tables.written(f"old\nold <!-- machine: M, 2 cores -->\n{row}", figures)
    told = "2 processes, 2026-11-28, load 0.2 to 3.5, steal 0.0% to 2.0%."
    assert text == f"old\n{told} <!-- machine: M, 2 cores -->\n{row}"
    assert tables.machine_of(text) == "M, 2 cores"
    assert tables.state({"a": figure(1.0)}).startswith("1 process, ")


def test_a_figure_that_was_not_recorded_is_named() -> None:
    with pytest.raises(KeyError, match="no figure 'c.py::t' is recorded"):
        tables.written("| 1 <!-- part: c.py::t --> |", FIGURES)


def test_pages_are_written_or_only_compared(tmp_path: Path) -> None:
    record, first, last = (tmp_path / name for name in ("record.json", "first.md", "last.md"))
    record.write_text(json.dumps({"M": FIGURES}))
    first.write_text("| 1× <!-- ratio: b.py::t #2 --> |")
    last.write_text("<!-- machine: M -->\n")
    assert tables.write(record, (first, last), check=True) == [first, last]
    assert first.read_text() == "| 1× <!-- ratio: b.py::t #2 --> |"
    assert tables.write(record, (first, last)) == [first, last]
    assert first.read_text() == "| 0.81× <!-- ratio: b.py::t #2 --> |"
    assert tables.write(record, (first, last)) == []
    last.write_text("<!-- machine: N -->\n")
    with pytest.raises(KeyError, match="last.md tells of 'N', of which nothing is recorded"):
        tables.write(record, (first, last))


def test_readme_and_docs_tell_what_was_recorded() -> None:
    assert tables.write(check=True) == []


def test_every_figure_of_readme_has_a_name() -> None:
    text = tables.PAGES[0].read_text(encoding="utf-8")
    cells = re.findall(r"\| ([\d.]+×[^|]*)\|", text)
    assert cells
    assert [cell for cell in cells if not tables.FIGURE.search(f"| {cell}")] == []


def test_the_whole_table_has_each_figure_of_readme() -> None:
    readme, docs = (
        {match["name"] for match in tables.FIGURE.finditer(page.read_text(encoding="utf-8"))}
        for page in tables.PAGES
    )
    assert len(readme) >= 10
    assert readme - docs == set()
