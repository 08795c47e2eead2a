"""What a notebook shows of an Inspector, Stats and a Comparison."""

from __future__ import annotations

import time
from html.parser import HTMLParser

import pytest
import torch
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


@pytest.mark.unsanitized
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
