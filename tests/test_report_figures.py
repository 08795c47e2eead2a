"""What the report's page shows of values: linear axes, columns, strips of rows and columns, modules, paper."""

from __future__ import annotations

import base64
import math

import pytest
import torch
from browser import chromium, complaints, until
from report_page import Report
from reports import faulty
from torch import nn

import pyparam
from pyparam._view.html.pack import unpack
from pyparam._view.html.strips import NOT_FINITE, ZERO, norms_of

# --- norms of rows and columns -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5), (1, 7), (7, 1), (700, 900), (6, 4, 3, 3), (2, 40_000, 7)])
def test_norms_are_those_of_torch(shape, dtype):
    tensor = torch.randn(shape, dtype=torch.float32, device="cpu").to(dtype)
    found = norms_of(tensor, float(tensor.abs().max()))
    squares = tensor.double().square().reshape(*shape[:2], -1)
    torch.testing.assert_close(found.rows, squares.mean((1, 2)).sqrt(), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.columns, squares.mean((0, 2)).sqrt(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_norms_neither_overflow_nor_vanish(size):
    tensor = torch.full((4, 6), size, dtype=torch.float32, device="cpu")
    found = norms_of(tensor, size)
    assert found.rows.tolist() == pytest.approx([size] * 4)
    assert found.columns.tolist() == pytest.approx([size] * 6)


def test_norms_of_any_layout():
    tensor = torch.randn(6, 10, device="cpu", dtype=torch.float32)
    found = norms_of(tensor.t(), 3.0)
    torch.testing.assert_close(found.rows, norms_of(tensor, 3.0).columns)
    assert norms_of(tensor[:, ::2], 3.0).columns.shape == (5,)


def strips_of(path):
    text = path.read_text(encoding="utf-8").partition('id="data">')[2].partition("<")[0]
    _, columns = unpack(text.strip())
    levels, found, at = columns["strip_level"].tolist(), {}, 0
    for i, length in enumerate(columns["strip_length"].tolist()):
        found[i] = levels[at : at + length], levels[at + length : at + 2 * length]
        at += 2 * length
    return columns, found


def test_strips_hold_the_norms_and_mark_zeros_and_nonfinite_rows(tmp_path):
    matrix = torch.randn(12, 20, device="cpu", dtype=torch.float32)
    matrix[3] = 0
    matrix[7, 2] = math.inf
    columns, strips = strips_of(pyparam.report({"w": matrix}, tmp_path / "a.html").path)
    most, least = strips[0]
    assert most == least  # a cell a row
    assert most[3] == ZERO
    assert most[7] == NOT_FINITE
    low, high = columns["strip_low"].double()[0], columns["strip_high"].double()[0]
    good = [row for row in range(12) if row not in (3, 7)]
    told = [2.0 ** float(low + (most[row] - 1) / 253 * (high - low)) for row in good]
    assert told == pytest.approx(matrix[good].square().mean(1).sqrt().tolist(), rel=0.02)
    assert [level == NOT_FINITE for level in strips[1][0]] == [column == 2 for column in range(20)]


def test_a_cell_of_a_long_strip_keeps_its_extremes(tmp_path):
    matrix = torch.ones(4096, 8, device="cpu", dtype=torch.float32)
    matrix[1000] = 100.0
    matrix[2000] = 0.0
    _, strips = strips_of(pyparam.report({"w": matrix}, tmp_path / "a.html").path)
    most, least = strips[0]
    assert len(most) == 256
    assert [i for i, level in enumerate(most) if level == 254] == [1000 * 256 // 4096]
    assert [i for i, level in enumerate(least) if level == ZERO] == [2000 * 256 // 4096]


def test_only_matrices_have_strips(tmp_path):
    source = {
        "vector": torch.ones(100, device="cpu", dtype=torch.float32),
        "row": torch.ones(1, 100, device="cpu", dtype=torch.float32),
        "ids": torch.ones(20, 20, device="cpu", dtype=torch.int64),
        "none": torch.ones(0, 20, device="cpu", dtype=torch.float32),
    }
    columns, _ = strips_of(pyparam.report(source, tmp_path / "a.html").path)
    assert columns["strip_stats"].tolist() == []


# --- the page ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as made:
        yield made


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return faulty()


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    return pyparam.report(model, tmp_path_factory.mktemp("report") / "faulty.html").path


@pytest.fixture
def page(driver, written):
    yield Report(driver, written)
    assert complaints(driver) == []


def test_a_normal_is_one_hump_on_the_linear_axis(page):
    page.go("#/parameter/h.0.linear1.weight")
    drawn = "const p = document.querySelectorAll('#page .chart')[0]; return [p.layout.xaxis.title.text, p.data[0].y]"
    title, heights = page.run(drawn)
    assert title == "value, linear"
    assert sum(heights) == pytest.approx(1, abs=2e-3)
    middle = heights.index(max(heights))
    assert abs(middle - len(heights) / 2) < len(heights) / 5
    assert min(heights[middle - 3 : middle + 4]) > 0.5 * max(heights)
    title = "return document.querySelectorAll('#page .chart')[1].layout.xaxis.title.text"
    assert page.run(title) == "value, signed logarithmic"


def test_few_far_values_are_named_beside_a_linear_axis(driver, tmp_path):
    values = torch.linspace(-1, 1, 10_000, device="cpu", dtype=torch.float32)
    values[5] = 1000.0
    report = Report(driver, pyparam.report({"x": values}, tmp_path / "a.html").path, "#/parameter/x")
    drawn = "const p = document.querySelectorAll('#page .chart')[0]; return [p.layout.xaxis.range, p.layout.annotations.map((a) => a.text)]"
    (low, high), notes = report.run(drawn)
    assert low == pytest.approx(-1, rel=0.01)
    assert 0.95 < high < 1.1
    assert notes == ["1 beyond, up to 1,000"]


def test_the_table_has_l2_largest_and_nonfinite(page, model):
    heads = page.run("return [...document.querySelectorAll('.head .cell')].map((c) => c.textContent)")
    assert heads == [
        "Name", "Shape", "Dtype", "Values", "Mean", "Std", "Min", "Max", "Max |x|", "L2", "Zeros", "Not finite",
        "Distribution",
    ]  # fmt: skip
    page.sort("nonfinite")
    assert page.lines()[0] == "h.1.linear1.weight"
    assert page.run("return document.querySelector('.body .cell.nonfinite.some').textContent") == "1"
    page.sort("l2")
    rows = "const { table, model } = pyparam.report; return table.items.slice(0, 5).map((row) => model.names[row])"
    order = pyparam.measure(model).sort("l2").names
    assert page.run(rows) == order[:5]
    page.sort("max_abs")
    largest = "const { table, model } = pyparam.report; return model.maxAbs(table.items[0])"
    assert page.run(largest) == pytest.approx(float(pyparam.measure(model).max_abs.nan_to_num().max()))


def test_the_whole_head_of_a_column_sorts(page):
    from selenium.webdriver import ActionChains

    head = page.one(".head [data-column=std]")
    size = head.size
    ActionChains(page.driver).move_to_element_with_offset(
        head, 4 - size["width"] // 2, 4 - size["height"] // 2
    ).click().perform()
    assert head.get_attribute("aria-sort") == "descending"


def test_a_module_unites_what_is_below_it(page, model):
    united = "const u = pyparam.report.table.rows.all.of(pyparam.report.model.node(arguments[0])); return u"
    for name in ("h.0", "h.1.self_attn", "wte"):
        found = page.run(united, name)
        total = pyparam.measure(model.get_submodule(name)).total
        for figure in ("mean", "std", "min", "max", "l2", "max_abs"):
            assert found[figure] == pytest.approx(getattr(total, figure), rel=1e-5), (name, figure)
        assert (found["values"], found["zeros"], found["nonfinite"]) == (
            total.numel,
            total.zeros,
            total.nonfinite,
        )
    # The head shares its memory with the embedding: the model has it once, and each of the two modules once.
    assert page.run(united, "")["values"] == pyparam.measure(model).total.numel
    assert page.run(united, "head")["values"] == model.head.weight.numel()
    page.filter("h.0 linear1")
    shown = (
        "const t = pyparam.report.table; return t.below.united.of(pyparam.report.model.node('h.0')).values"
    )
    assert page.run(shown) == sum(p.numel() for p in model.h[0].linear1.parameters())


def test_a_module_shows_its_figures_and_its_distribution(page):
    cells = "const l = [...document.querySelectorAll('.body .line.module')].find((l) => l.textContent.includes('wte')); return [l.querySelector('.cell.std').textContent, l.querySelector('canvas').hidden]"
    text, hidden = page.run(cells)
    assert text.startswith("0.0")
    assert not hidden
    painted = "return document.querySelector('.spark:not([hidden])').toDataURL()"
    logarithmic = page.run(painted)
    page.run("document.querySelector('[name=table-axis][value=linear]').click()")
    assert page.run(painted) != logarithmic


def test_a_matrix_shows_strips(page):
    page.go("#/parameter/h.2.linear2.weight")  # all zero
    assert "zero in 64 cells" in page.one(".stripped").text
    page.go("#/parameter/h.1.linear1.weight")
    words = page.text(".stripped p")
    assert words[0].startswith("128 rows, ")
    assert words[0].endswith("not finite in 1 cell")
    assert words[1].startswith("64 columns, ")
    drawn = "return [...document.querySelectorAll('canvas.strip')].map((c) => new Set(c.getContext('2d').getImageData(0, 0, c.width, 1).data).size)"
    assert all(colours > 10 for colours in page.run(drawn))
    page.go("#/parameter/h.1.linear1.bias")
    assert page.all(".strip") == []


def test_paper_has_the_whole_map_and_every_line(page):
    page.one("#theme").click()
    page.one("#close-all").click()
    before = page.lines()
    page.run("window.dispatchEvent(new Event('beforeprint'))")
    assert page.run("return document.documentElement.dataset.theme") == "light"
    rows = "return [pyparam.report.table.items.length, document.querySelectorAll('.body .line:not([hidden])').length, pyparam.report.model.length]"
    items, lines, parameters = page.run(rows)
    assert lines == items > parameters
    order = "return [...document.querySelectorAll('.body .line')].map((l) => Number(l.dataset.index))"
    assert page.run(order) == list(range(items))
    assert page.run("const s = document.querySelector('#map-plot svg'); return s.clientWidth") <= 940
    page.run("window.dispatchEvent(new Event('afterprint'))")
    assert page.run("return document.documentElement.dataset.theme") == "dark"
    assert page.lines() == before
    width = "return document.querySelector('#map-plot svg').clientWidth"
    until(lambda: page.run(width) > 940, "the map as wide as the screen")
    page.one("#theme").click()


def test_it_prints(page):
    lines = "return pyparam.report.table.items.length"
    count = page.run(lines)
    made = page.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    pdf = base64.b64decode(made["data"])
    assert pdf.startswith(b"%PDF")
    pages = pdf.count(b"/Type /Page\n") + pdf.count(b"/Type/Page\n")
    assert pages > count / 40  # a line is 24 pixels high, and a sheet 720
    assert page.run("return document.documentElement.classList.contains('paper')") is False


def test_a_module_without_weights_unites_what_it_has(tmp_path):
    norm = nn.BatchNorm1d(3, affine=False)
    path = pyparam.report(nn.Sequential(norm), tmp_path / "a.html").path
    text = path.read_text(encoding="utf-8").partition('id="data">')[2].partition("<")[0]
    _, columns = unpack(text.strip())
    assert columns["row_weight"].tolist() == [0, 0, 0]
