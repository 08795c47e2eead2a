"""What a notebook shows of an Inspector, Stats and a Comparison."""

from __future__ import annotations

import itertools
import time
from html.parser import HTMLParser

import pytest
import torch
from browser import chromium
from torch import nn

import pyparam
from pyparam._cli.demo import mixture, net


class Reader(HTMLParser):
    """Checks that tags are closed in order; collects the cells of each row, and other text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.notes: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        assert tag in ("div", "style", "table", "thead", "tbody", "tr", "th", "td", "p"), tag
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "p":
            self.notes.append("")

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        elif self.open[-1] == "p":
            self.notes[-1] += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


def test_an_inspector_shows_the_tree() -> None:
    shown = read(pyparam.inspect(net())._repr_html_())
    assert shown.rows[0] == ["module", "type", "tensors", "dtype", "device", "", "values", "bytes"]
    assert shown.rows[1][0] == "(model)"
    assert [
        "    block 0 – block 3",
        "4 × Sequential",
        "",
        "",
        "",
        "trainable",
        "4 × 76",
        "4 × 304 B",
    ] in shown.rows
    assert shown.notes[0] == "309 values in 18 parameters, 1.21 KiB, all trainable"


def test_an_inspector_of_a_part_and_of_a_state_dict() -> None:
    assert "76 values" in read(pyparam.inspect(net())[0][1]._repr_html_()).notes[0]
    assert read(pyparam.inspect(net().state_dict())._repr_html_()).rows


def test_a_module_of_that_name_does_not_shadow_it() -> None:
    model = nn.ModuleDict({"_repr_html_": nn.Linear(2, 2)})
    assert "_repr_html_" in pyparam.inspect(model)._repr_html_()
    with pytest.raises(AttributeError):
        _ = pyparam.inspect(net())._repr_mimebundle_


def test_names_are_escaped() -> None:
    name = "<script>alert('x')</script>&\x07"
    for html in (
        pyparam.inspect({name: torch.ones(2)})._repr_html_(),
        pyparam.measure({name: torch.ones(2)})._repr_html_(),
        pyparam.compare({name: torch.ones(2)}, {name: torch.zeros(2)})._repr_html_(),
    ):
        assert "<script" not in html
        assert "\x07" not in html
        cells = [cell for row in read(html).rows for cell in row]
        assert any("<script>alert('x')</script>&\\x07" in cell for cell in cells)


def test_stats_point_out_what_is_not_finite() -> None:
    stats = pyparam.measure({"good": torch.ones(2), "bad": torch.tensor([1.0, float("nan")])})
    html = stats._repr_html_()
    assert html.count('<tr class="bad">') == 1
    shown = read(html)
    assert [row[0] for row in shown.rows] == ["name", "good", "bad", "total"]
    assert shown.rows[2][-1] == "1"
    unused = pyparam.measure(nn.Linear(2, 2), grad=True)
    assert read(unused._repr_html_()).notes == ["2 without a gradient"]


def test_fifty_thousand_rows_are_cheap_and_short() -> None:
    model = mixture()
    inspector, stats = pyparam.inspect(model), pyparam.measure(model)
    begin = time.perf_counter()
    of_model, of_stats = inspector._repr_html_(), stats._repr_html_()
    assert time.perf_counter() - begin < 15
    assert len(of_model) + len(of_stats) < 30_000
    assert "… 47,378 more" in of_stats
    flat = nn.ModuleList(nn.Linear(2, i + 1) for i in range(200))
    shown = read(pyparam.inspect(flat)._repr_html_())
    assert len(shown.rows) == 62
    assert shown.rows[-1] == ["… more: pyparam.show prints all"]


def test_it_takes_the_colours_of_the_page() -> None:
    html = pyparam.measure(net())._repr_html_()
    assert "currentColor" in html
    for colour in (":white", ":black", "#fff", "#000"):
        assert colour not in html


# What JupyterLab 4.6 says of tables in an output, with the values of its light theme.
JUPYTERLAB = """
.jp-RenderedHTMLCommon { color: rgba(0, 0, 0, 0.87); font-size: 14px; line-height: 1.6; }
.jp-RenderedHTMLCommon table { border-collapse: collapse; border-spacing: 0; border: none;
  color: rgba(0, 0, 0, 0.87); font-size: 13px; table-layout: fixed; margin-left: auto; margin-bottom: 1em;
  margin-right: auto; }
.jp-OutputArea-output.jp-RenderedHTMLCommon table { margin-left: 0; margin-right: 0; }
.jp-RenderedHTMLCommon thead { border-bottom: 1px solid #bdbdbd; vertical-align: bottom; }
.jp-RenderedHTMLCommon td, .jp-RenderedHTMLCommon th, .jp-RenderedHTMLCommon tr { vertical-align: middle;
  padding: 0.5em; line-height: normal; white-space: normal; max-width: none; border: none; }
:not(.jp-RenderedMarkdown).jp-RenderedHTMLCommon td, :not(.jp-RenderedMarkdown).jp-RenderedHTMLCommon th,
:not(.jp-RenderedMarkdown).jp-RenderedHTMLCommon tr { text-align: right; }
.jp-RenderedHTMLCommon th { font-weight: bold; }
.jp-RenderedHTMLCommon tbody tr:nth-child(odd) { background: white; }
.jp-RenderedHTMLCommon tbody tr:nth-child(even) { background: #f5f5f5; }
.jp-RenderedHTMLCommon p { text-align: left; margin: 0; margin-bottom: 1em; }
"""
# The classic notebook, nbconvert's default page and VS Code's use fewer classes and elements.
CLASSIC = """
.rendered_html table { margin-left: auto; margin-right: auto; border: none; table-layout: fixed; }
.rendered_html tr, .rendered_html th, .rendered_html td { text-align: right; padding: 0.5em; white-space: normal; }
.rendered_html tbody tr:nth-child(odd) { background: #f5f5f5; }
"""


@pytest.mark.parametrize(
    ("sheet", "classes"),
    [(JUPYTERLAB, "jp-RenderedHTMLCommon jp-RenderedHTML jp-OutputArea-output"), (CLASSIC, "rendered_html")],
    ids=["JupyterLab", "classic"],
)
def test_tables_within_a_notebooks_own_styles(tmp_path, sheet, classes) -> None:
    model = net()
    outputs = [
        pyparam.inspect(model)._repr_html_(),
        pyparam.measure(model)._repr_html_(),
        pyparam.compare(model, net())._repr_html_(),
    ]
    page = tmp_path / "notebook.html"
    page.write_text(
        f"<!doctype html><meta charset=utf-8><style>{sheet}</style>"
        + "".join(f'<div class="{classes}">{output}</div>' for output in outputs),
        encoding="utf-8",
    )
    with chromium(tmp_path / "profile") as driver:
        driver.get(page.as_uri())
        seen = driver.execute_script(
            """
            return [...document.querySelectorAll("td, th")].map(cell => {
              const style = getComputedStyle(cell), row = getComputedStyle(cell.parentElement);
              return [cell.classList.contains("left"), style.textAlign, style.whiteSpace, style.paddingLeft,
                      row.backgroundColor];
            })
            """
        )
        lines = driver.execute_script(
            """
            const range = document.createRange();
            return [...document.querySelectorAll("table")[0].rows].map(row => {
              const text = row.cells[0].firstChild;
              const indent = text.data.length - text.data.trimStart().length;
              range.setStart(text, indent); range.setEnd(text, text.data.length);
              return [indent, range.getBoundingClientRect().left];
            })
            """
        )
    assert {side for left, side, *_ in seen if left} == {"left"}
    assert {side for left, side, *_ in seen if not left} == {"right"}
    assert {tuple(rest) for _, _, *rest in seen} == {("pre", "4px", "rgba(0, 0, 0, 0)")}
    # What is deeper in the model begins further to the right.
    starts = {indent: {place for at, place in lines if at == indent} for indent, _ in lines}
    assert all(len(places) == 1 for places in starts.values())
    ordered = [starts[indent].pop() for indent in sorted(starts)]
    assert len(ordered) >= 4
    assert all(b - a > 3 for a, b in itertools.pairwise(ordered))
