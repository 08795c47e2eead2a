"""The report in headless Chromium: it draws, sorts, filters, follows clicks and keys, and asks for "
"nothing."""

from __future__ import annotations

import re
import time
from urllib.parse import quote

import pytest
import torch
from browser import chromium, complaints, requests, until
from faulty_training import Transformer, train
from report_page import Report, responds
from reports import GPT, HOSTILE, faulty

import pyparam
from pyparam._cli.demo import mixture

RESPONSE = 100  # milliseconds


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as made:
        yield made


def trained(path):
    """A report of a run in which a layer was frozen."""
    model = Transformer(16, 3, 32, 2)
    at = {"rate": 40, "frozen": 50, "detached": 900, "moment": 900, "overflow": 900}
    monitor, _, _ = train(model, 32, steps=70, length=9, at=at, every=2)
    return pyparam.report(monitor, path, spectra=True).path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Reports by name, each written once."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("reports")
    model = faulty()
    return {
        "faulty": pyparam.report(model, folder / "faulty.html").path,
        "against": pyparam.report(model, folder / "against.html", against=GPT()).path,
        "healthy": pyparam.report(GPT(tied=False), folder / "healthy.html").path,
        "trained": trained(folder / "trained.html"),
        "many": pyparam.report(mixture(13, 128), folder / "many.html").path,
    }


@pytest.fixture
def opened(driver, files):
    """Opens a report; afterwards, whatever the test did, the console and the network must have stayed "
    "silent."""
    paths = []

    def open_it(name, address=""):
        paths.append(files[name])
        return Report(driver, files[name], address)

    yield open_it
    assert complaints(driver) == []
    asked = {url.partition("#")[0] for url in requests(driver) if url != "about:blank"}
    assert asked <= {path.as_uri() for path in paths}


@pytest.fixture(autouse=True)
def _light(driver):
    yield
    driver.get("about:blank")


@pytest.fixture
def keys():
    from selenium.webdriver import Keys

    return Keys


# --- it draws ------------------------------------------------------------------------------------------------


def test_it_draws_everything(opened):
    report = opened("faulty")
    assert report.one("#title").text == "GPT"
    assert report.one("#subtitle").text.startswith("54 parameters · ")
    kinds = report.run('return [...document.querySelectorAll("article.finding")].map((a) => a.dataset.kind)')
    assert kinds[0] == "non-finite"
    assert kinds[-1] == "tied"
    assert len(kinds) == 8
    assert "h.1.linear1.weight 1 NaN of 8,192" in report.one("article.error").text
    assert len(report.all("#map-plot g.slice")) > 20
    assert report.lines()[:4] == [HOSTILE, "wte", "weight", "wpe"]
    drawn = "return [...document.querySelector('.spark:not([hidden])').getContext('2d').getImageData(0, 0, 100, 20).data].some(Boolean)"
    assert report.run(drawn)


def test_without_findings_it_says_so(opened):
    report = opened("healthy")
    assert "Nothing wrong was found." in report.one("#findings").text
    assert report.all("article.finding") == []


# Pixels of each heat map that are not empty.
PAINTED = """return [...document.querySelectorAll(arguments[0])].map((canvas) => {
  const { width, height } = canvas;
  const copy = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const data = copy.getImageData(0, 0, width, height).data;
  return data.filter((value, i) => i % 4 === 3 && value).length / (width * height);
})"""


def test_where_training_stands(opened):
    report = opened("trained")
    told = report.text("#training li")
    assert any("layers.2 (12 parameters) left their course at step 50" in text for text in told)
    assert report.text("#training figcaption strong") == [
        "RMS of weights", "RMS of gradients", "Update over weight", "Fluctuation of gradient norms",
        "Largest singular value",
    ]  # fmt: skip
    until(lambda: min(report.run(PAINTED, "#training canvas")) > 0.3, "the maps")
    before = report.run("return document.querySelector('#training canvas').toDataURL()")
    report.one("#theme").click()
    assert report.run("return document.querySelector('#training canvas').toDataURL()") != before
    report.one("#theme").click()
    report.one("#training li a").click()
    report.ready("#/parameter/layers.2.norm1.weight")


def test_layers_side_by_side(opened):
    report = opened("trained")
    assert report.text("#roles thead th") == [
        "Role",
        "Members",
        "RMS",
        "largest singular value",
        "stable rank",
    ]
    assert report.text("#roles tbody th")[:3] == ["norm1", "norm1.bias", "norm2"]
    until(lambda: min(report.run(PAINTED, "#roles canvas")) > 0.3, "the strips")
    report.one("#roles canvas").click()  # the middle of three
    report.ready("#/parameter/layers.1.norm1.weight")
    report.go("#/")
    assert min(report.run(PAINTED, "#roles canvas")) > 0.3


def test_a_hostile_name_stays_a_name(opened):
    report = opened("faulty", "#/parameter/" + quote(HOSTILE, safe=""))
    assert report.one("h2.name").text == HOSTILE
    assert report.all("img") == []
    report.go("#/")
    tiles = report.text("#map-plot g.slice text")
    assert report.all("img") == []
    assert report.run("return window.hacked") is None
    assert tiles


def test_the_page_of_a_parameter(opened):
    report = opened("faulty", "#/parameter/h.0.linear2.weight")
    assert report.one("h2.name").text == "h.0.linear2.weight"
    assert "64×128 · float32 · 8,192 values · 32 KiB · cpu · parameter of Linear" in report.one("#page").text
    assert "times larger than its 2 siblings" in report.one(".banner.warning").text
    assert len(report.all("#page .chart .bars .point")) > 20
    facts = dict(zip(report.text("#page dt"), report.text("#page dd"), strict=True))
    assert set(facts) >= {"Mean", "Standard deviation", "Median", "Least", "Largest", "1 %", "99 %", "Zeros"}
    rows = [row.split() for row in report.text(".precisions tbody tr")]
    assert [row[0] for row in rows] == ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
    logarithmic = "return document.querySelectorAll('#page .chart')[1].layout.shapes.length"
    before = report.run(logarithmic)
    report.one(".precisions input[value=float8_e4m3fn]").click()
    assert report.run(logarithmic) > before
    points = "return document.querySelectorAll('#page .chart')[2].data[4].x.length"
    assert report.run(points) == 4


def test_pages_of_odd_parameters(opened):
    report = opened("faulty", "#/parameter/h.2.linear2.weight")
    assert "100 %" in dict(zip(report.text("#page dt"), report.text("#page dd"), strict=True))["Zeros"]
    report.go("#/parameter/head.weight")
    assert "Shares its memory with wte.weight." in report.one("#page").text
    report.go("#/parameter/none.of.these")
    assert report.one("#page").text == "There is no parameter none.of.these. Overview"


def test_what_changed(opened):
    report = opened("against")
    text = report.one("#changes").text
    assert text.startswith("Changes\nAgainst the other GPT: ")
    assert re.search(r"\d+ of 53 parameters changed", text)
    assert "1 only here" in text
    assert len(report.all("#changes .point")) > 5
    report.one("#changes button.link").click()
    assert report.one(".head [data-column=changed]").get_attribute("aria-sort") == "descending"
    assert "changed against the other GPT" in report.one("#chip").text
    report.go("#/parameter/h.0.linear2.weight")
    assert "‖change‖ / ‖before‖" in report.text("#page dt")


def test_dark_and_light(opened):
    report = opened("faulty")
    paper = "return getComputedStyle(document.body).backgroundColor"
    assert report.run("return document.documentElement.dataset.theme") == "light"
    light = report.run(paper)
    tile = "return getComputedStyle(document.querySelectorAll('#map-plot g.slice path.surface')[3]).fill"
    light_tile = report.run(tile)
    report.one("#theme").click()
    assert report.run("return document.documentElement.dataset.theme") == "dark"
    assert report.run(paper) != light
    until(lambda: report.run(tile) != light_tile, "the map in dark colours")
    report.one("#theme").click()
    assert report.run(paper) == light


def test_the_system_may_ask_for_dark(driver, files):
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    try:
        driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "local_storage"})
        report = Report(driver, files["healthy"])
        report.run("try { localStorage.clear() } catch {}")
        report = Report(driver, files["healthy"])
        assert report.run("return document.documentElement.dataset.theme") == "dark"
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("width", [1600, 1000, 700, 420])
def test_nothing_overflows(opened, driver, width):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    try:
        report = opened("faulty")
        assert report.run("return document.documentElement.scrollWidth") <= width
        report.go("#/parameter/h.1.linear1.weight")
        assert report.run("return document.documentElement.scrollWidth") <= width
        report = opened("trained")
        assert report.run("return document.documentElement.scrollWidth") <= width
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_reads_its_data_without_decompression_streams(driver, files):
    script = driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.DecompressionStream"}
    )
    try:
        report = Report(driver, files["many"])
        assert report.run("return typeof DecompressionStream") == "undefined"
        assert report.run("return pyparam.report.model.length") == 5_110
        names = [name for name, _ in pyparam.named_parameters(mixture(13, 128))]
        assert report.run("return pyparam.report.model.names") == names
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


# --- the table -----------------------------------------------------------------------------------------------


def test_it_sorts(opened):
    report = opened("healthy")
    report.sort("std")
    order = report.run(
        "const { table, model } = pyparam.report; return table.items.map((row) => model.stat('std', row))"
    )
    numbers = [x for x in order if x is not None]
    assert len(order) == 53
    assert numbers == sorted(numbers, reverse=True)
    assert report.one(".head [data-column=std]").get_attribute("aria-sort") == "descending"
    report.sort("std")
    assert report.one(".head [data-column=std]").get_attribute("aria-sort") == "ascending"
    report.sort("std")
    assert report.one(".head [data-column=std]").get_attribute("aria-sort") == "none"
    assert report.lines()[0] == "wte"
    report.sort("name")
    lines = report.lines()
    assert lines == sorted(lines)
    assert lines[0] == "h.0.linear1.bias"


def test_it_filters(opened, keys):
    report = opened("healthy")
    report.filter("linear1 weight")
    assert report.one("#count").text == "4 of 53 parameters"
    assert report.lines() == ["h", "0", "linear1", "weight", "1", "linear1", "weight", "2", "linear1", "weight", "3", "linear1", "weight"]  # fmt: skip
    report.filter("*.bias")
    assert report.one("#count").text == "21 of 53 parameters"
    report.filter("h.?.norm1.*")
    assert report.one("#count").text == "8 of 53 parameters"
    report.filter("nothing has this")
    assert report.one("#table .empty").is_displayed()
    assert "No name matches" in report.one("#table .empty").text
    report.keys(keys.ESCAPE)
    assert report.one("#count").text == "53 parameters"
    assert report.one("#filter").get_attribute("value") == ""


def test_it_folds(opened):
    report = opened("healthy")
    assert "self_attn" in report.lines()
    report.one("#close-all").click()
    assert report.lines() == ["wte", "wpe", "h", "ln_f", "head"]
    line = next(line for line in report.all(".body .line") if line.text.startswith("▸\nh"))
    assert line.get_attribute("aria-expanded") == "false"
    line.click()
    assert report.lines() == ["wte", "wpe", "h", "0", "1", "2", "3", "ln_f", "head"]
    report.one("#open-all").click()
    assert report.run("return pyparam.report.table.items.length") > 70


def test_a_finding_leads_to_its_parameters(opened):
    report = opened("faulty")
    report.one("article.error .names a").click()
    report.ready("#/parameter/h.1.linear1.weight")
    assert report.one("h2.name").text == "h.1.linear1.weight"
    assert "1 NaN of 8,192" in report.one(".banner.error").text


def test_the_table_leads_to_a_parameter_and_back(opened, keys):
    report = opened("healthy")
    report.filter("wpe")
    report.all(".body .line a[href]")[0].click()
    report.ready("#/parameter/wpe.weight")
    assert not report.one("#overview").is_displayed()
    report.driver.back()
    report.ready("#/")
    assert report.one("#overview").is_displayed()
    assert report.one("#count").text == "1 of 53 parameters"


# --- the map -------------------------------------------------------------------------------------------------


def tile(report, name):
    """The tile of a module or parameter of the map."""
    found = report.run(
        """const { map, model } = pyparam.report;
        const slice = map.slices().find(({ tile }) => tile.item !== null &&
          (tile.item < 0 ? model.paths[~tile.item] : model.names[tile.item]) === arguments[0]);
        return slice && slice.element""",
        name,
    )
    assert found is not None, name
    return found


def click(report, name):
    # On its label, since the middle of a module is its largest part.
    box = report.run(
        "const b = arguments[0].querySelector('text').getBoundingClientRect(); return [b.left + 3, b.top + "
        "3]",
        tile(report, name),
    )
    from selenium.webdriver.common.actions.action_builder import ActionBuilder

    actions = ActionBuilder(report.driver)
    actions.pointer_action.move_to_location(*map(int, box)).click()
    actions.perform()


def test_the_map_leads_to_a_parameter(opened):
    report = opened("healthy")
    report.run("document.getElementById('map').scrollIntoView()")
    click(report, "h.1")
    report.ready("#/module/h.1")
    assert report.text("#map-path a, #map-path [aria-current]") == ["all", "h", "1"]
    click(report, "h.1.linear1")
    report.ready("#/module/h.1.linear1")
    click(report, "h.1.linear1.weight")
    report.ready("#/parameter/h.1.linear1.weight")
    assert report.one("h2.name").text == "h.1.linear1.weight"
    report.driver.back()
    report.ready("#/module/h.1.linear1")
    report.one("#map-path a").click()
    report.ready("#/")


def test_the_map_by_bytes(opened):
    report = opened("faulty")
    assert "values in 54 parameters" in report.one("#map-note").text
    report.one("#map-size input[value=bytes]").find_element("xpath", "..").click()
    until(lambda: "KiB in 54 parameters" in report.one("#map-note").text, "the map by bytes")


# --- the keyboard --------------------------------------------------------------------------------------------


def focused(report):
    return report.run(
        "const e = document.activeElement; return e.id || e.className.baseVal || e.className || e.tagName"
    )


def test_the_keyboard_alone_reaches_a_parameter_and_comes_back(opened, keys):
    report = opened("healthy")
    report.keys("/")
    until(lambda: focused(report) == "filter", "the filter")
    report.keys("norm2", keys.ARROW_DOWN)
    assert focused(report).startswith("grid")
    assert report.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert report.one(".line.active .label").text == "h"
    report.keys(*[keys.ARROW_DOWN] * 3)
    assert report.one(".line.active .label").text == "weight"
    active = report.one(".grid").get_attribute("aria-activedescendant")
    assert report.one(f"#{active} .label").text == "weight"
    report.keys(keys.ENTER)
    report.ready("#/parameter/h.0.norm2.weight")
    assert focused(report) == "parameter"
    report.keys(keys.ARROW_RIGHT)
    report.ready("#/parameter/h.0.norm2.bias")
    report.keys(keys.ARROW_LEFT)
    report.ready("#/parameter/h.0.norm2.weight")
    report.keys(keys.ESCAPE)
    report.ready("#/")
    assert focused(report).startswith("grid")
    assert report.one(".line.active .label").text == "weight"
    report.keys(keys.ESCAPE)
    assert report.one("#count").text == "53 parameters"


def test_the_keyboard_folds_and_moves(opened, keys):
    report = opened("healthy")
    report.one("#close-all").click()
    report.run("document.querySelector('.grid').focus()")
    active = "return pyparam.report.table.active"
    report.keys(keys.HOME, keys.ARROW_DOWN, keys.ARROW_DOWN, keys.ARROW_RIGHT)
    assert report.lines()[:5] == ["wte", "wpe", "h", "0", "1"]
    report.keys(keys.ARROW_RIGHT)
    assert report.run(active) == 3
    report.keys(keys.ARROW_LEFT)
    assert report.run(active) == 2
    report.keys(keys.ARROW_LEFT)
    assert report.lines() == ["wte", "wpe", "h", "ln_f", "head"]
    report.keys(keys.END)
    assert report.run(active) == 4
    report.keys(keys.HOME)
    assert report.run(active) == 0


def test_the_keyboard_walks_the_map(opened, keys):
    report = opened("healthy")
    report.run("document.querySelector('#map-plot g.slice[tabindex=\"0\"]').focus()")
    seen = set()
    for key in (keys.ARROW_RIGHT, keys.ARROW_DOWN, keys.ARROW_LEFT, keys.ARROW_UP, keys.ARROW_RIGHT):
        report.keys(key)
        assert focused(report).startswith("slice")
        seen.add(report.run("return document.activeElement.getAttribute('aria-label')"))
    assert len(seen) > 1
    report.run("pyparam.report.map.current = arguments[0]; pyparam.report.map.reachable(); pyparam.report.map.focus()",
               report.run("const { map, model } = pyparam.report; return `m${model.node('h')}`"))  # fmt: skip
    report.keys(keys.ENTER)
    report.ready("#/module/h")
    until(lambda: focused(report).startswith("slice"), "a tile of the new map")
    assert len(report.all("#map-plot g.slice[tabindex='0']")) == 1
    report.keys(keys.BACKSPACE)
    report.ready("#/")


def test_tab_reaches_every_part(opened, keys):
    report = opened("faulty")
    seen = []
    for _ in range(60):
        report.keys(keys.TAB)
        seen.append(focused(report).partition(" ")[0])
    for part in ("theme", "help", "slice", "filter", "open-all"):
        assert part in seen, part
    assert any(name.startswith("grid") for name in seen)
    assert seen.index("theme") < seen.index("slice") < seen.index("filter")


def test_the_keys_are_told(opened, keys):
    report = opened("healthy")
    report.keys("?")
    assert "filter the parameters by name" in report.one("#keys").text
    report.keys(keys.ESCAPE)
    assert not report.one("#keys").is_displayed()
    report.keys("t")
    assert report.run("return document.documentElement.dataset.theme") == "dark"
    report.keys("t")


# --- speed ---------------------------------------------------------------------------------------------------


def test_five_thousand_parameters_respond(opened):
    report = opened("many")
    times = responds(report)
    assert max(times.values()) < RESPONSE, times


@pytest.mark.slow
def test_the_mixture_responds(driver, tmp_path):
    start = time.process_time()
    path = pyparam.report(mixture(), tmp_path / "mixture.html").path
    assert time.process_time() - start < 10
    report = Report(driver, path)
    times = responds(report)
    assert max(times.values()) < RESPONSE, times
    assert complaints(driver) == []
