"""Where training stands: layers over steps, in a figure and in a report."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from faulty_training import Transformer, train
from test_report import written
from torch import Tensor

import pyparam
from pyparam._view.html.training import LEVELS, NOT_FINITE, UNKNOWN, ZERO, levels_of
from pyparam._view.over_steps import course, fluctuation

AT = {"rate": 40, "frozen": 50, "detached": 60, "moment": 70, "overflow": 82}


@pytest.fixture(scope="module")
def monitor() -> pyparam.Monitor:
    torch.manual_seed(0)
    made, _, _ = train(Transformer(16, 3, 32, 2), 32, steps=90, length=9, at=AT, every=2, on_nonfinite="warn")
    return made


pytestmark = pytest.mark.filterwarnings("ignore:Monitor")


def shown(history) -> tuple[list[float], list[str], dict[str, Tensor]]:
    seen = course([record.step for record in history], history, 48)
    return seen.steps, [group.label for group in seen.groups], seen.grids


def test_layers_over_steps(monitor) -> None:
    history = monitor.history
    steps, layers, grids = shown(history)
    assert steps == [record.step for record in history]
    assert set(grids) == {
        "RMS of weights", "RMS of gradients", "update / weight", "fluctuation of gradients", "sigma_max",
    }  # fmt: skip
    record, layer = history[5], layers.index("layers.1.qkv")
    of = [i for i, name in enumerate(record.weights.names) if name.startswith("layers.1.qkv.")]
    whole = record.weights.by("module")["layers.1.qkv"].rms
    assert float(grids["RMS of weights"][layer, 5]) == pytest.approx(whole, rel=1e-12)
    moved = record.update_norms[of].square().sum().sqrt()
    before = history[5].update_norms / history[5].update_ratios
    assert float(grids["update / weight"][layer, 5]) == pytest.approx(
        float(moved / before[of].nan_to_num(0).square().sum().sqrt()), rel=1e-6
    )
    assert float(grids["sigma_max"][layer, 5]) == float(record.sigma_max[of].nan_to_num(0).max())
    frozen = layers.index("layers.2.qkv")
    at = steps.index(50)
    assert (grids["update / weight"][frozen, at:45] == 0).all()
    assert (grids["update / weight"][frozen, :at] > 0).all()
    # What overflowed made every weight NaN by the end.
    assert grids["RMS of gradients"][:, steps.index(82)].isinf().any()


def test_fluctuation_is_the_deviation_of_the_logarithm() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([[0.02], [0.2], [0.5]], dtype=torch.float64)
    noise = spread * torch.randn(3, 4000, generator=generator, dtype=torch.float64)
    fall = torch.linspace(0, -5, 4000, dtype=torch.float64)
    found = fluctuation((noise + fall).exp())
    assert found[:, :4].isnan().all()
    # Over 10 changes each is rough; their median is not.
    torch.testing.assert_close(found[:, 4:].median(1, keepdim=True).values, spread, rtol=0.2, atol=0)
    assert fluctuation(torch.zeros(2, 30, dtype=torch.float64)).isnan().all()


def test_the_figure(monitor) -> None:
    figure = pyparam.plot(monitor, "heat")
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == list(shown(monitor.history)[2])
    figure.draw_without_rendering()
    (words,) = [text.get_text() for text in [figure._supxlabel]]
    assert "layers.2 (12 parameters) left their course at step 50" in words.replace("\n", " ")
    levels = panels[0].images[0].get_array()
    rms = monitor.history[0].weights.by("module")["layers.0.qkv"].rms
    at = shown(monitor.history)[1].index("layers.0.qkv")
    assert float(levels[at, 0]) == pytest.approx(math.log10(rms))
    # A list of records is the same, and of Stats there are weights alone.
    assert len(pyparam.plot(monitor.history, "heat").axes) == len(figure.axes)
    alone = pyparam.plot([record.weights for record in monitor.history], "heat")
    assert [axes.get_title(loc="left") for axes in alone.axes if axes.images] == ["RMS of weights"]


def test_the_report_of_a_monitor(monitor, tmp_path) -> None:
    steps, layers, grids = shown(monitor.history)
    model = Transformer(16, 3, 32, 2)
    _, _, header, columns = written(model, tmp_path, history=monitor, spectra=True)
    training = header["training"]
    assert (training["steps"], training["layers"]) == (steps, layers)
    for i, panel in enumerate(training["panels"]):
        grid = grids[panel["title"]]
        levels = columns[f"training_{i}"].reshape(grid.shape).long()
        assert ((levels == UNKNOWN) == grid.isnan()).all()
        assert ((levels == ZERO) == (grid == 0)).all()
        assert ((levels == NOT_FINITE) == grid.isinf()).all()
        good = grid.isfinite() & (grid > 0)
        back = panel["low"] + (levels - 2) / (LEVELS - 1) * (panel["high"] - panel["low"])
        step = (panel["high"] - panel["low"]) / (LEVELS - 1)
        assert (back - grid.log2())[good].abs().max() <= 0.51 * step + 1e-9
    texts = [departure["text"] for departure in training["departures"]]
    assert texts == [str(departure) for departure in pyparam.departures(monitor.history)]
    rows = training["departures"][texts.index(next(t for t in texts if "layers.2 (12" in t))]["rows"]
    names = [name for name, _ in model.named_parameters()]
    assert [names[row] for row in rows] == [name for name in names if name.startswith("layers.2.")]


def test_roles_of_a_report(tmp_path) -> None:
    torch.manual_seed(0)
    model = Transformer(16, 3, 32, 2)
    with torch.no_grad():
        model.layers[1].up.weight.zero_()
        model.layers[2].up.weight[0, 0] = math.nan
    _, _, header, columns = written(model, tmp_path, spectra=True)
    names = [name for name, _ in model.named_parameters()]
    roles = {role["role"]: role for role in header["roles"]}
    assert list(roles) == list(pyparam.measure(model).by("role").members)[1:13]
    start = 0
    for role in header["roles"]:
        rows = columns["role_row"][start : start + role["length"]].tolist()
        start += role["length"]
        if role["role"] == "up":
            assert [names[row] for row in rows] == [f"layers.{i}.up.weight" for i in range(3)]
    rms, sigma, rank = roles["up"]["figures"]
    assert [rms["title"], sigma["title"], rank["title"]] == ["RMS", "largest singular value", "stable rank"]
    levels = columns["role_level"][rms["at"] : rms["at"] + 3].tolist()
    assert levels[1:] == [ZERO, NOT_FINITE]
    assert rms["low"] == pytest.approx(math.log2(pyparam.measure(model)["layers.0.up.weight"].rms))
    top = float(torch.linalg.svdvals(model.layers[0].up.weight.detach())[0])
    assert sigma["low"] == pytest.approx(math.log2(top), abs=1e-5)
    assert [figure["title"] for figure in roles["up.bias"]["figures"]] == ["RMS"]
    _, _, header, _ = written(model, tmp_path)
    assert "training" not in header
    assert {figure["title"] for role in header["roles"] for figure in role["figures"]} == {"RMS"}


def test_levels_of_nothing_and_of_one_value() -> None:
    low, high, levels = levels_of(torch.tensor([math.nan, 0.0, math.inf], dtype=torch.float64))
    assert (low, high, levels.tolist()) == (0.0, 0.0, [UNKNOWN, ZERO, NOT_FINITE])
    low, high, levels = levels_of(torch.tensor([4.0, 4.0], dtype=torch.float64))
    assert (low, high, levels.tolist()) == (2.0, 2.0, [2, 2])


def test_mistakes(monitor, tmp_path) -> None:
    path = tmp_path / "report.html"
    with pytest.raises(TypeError, match="report: history is an int; expected a Monitor or its history"):
        pyparam.report(Transformer(8, 1, 8, 2), path, history=3)
    with pytest.raises(TypeError, match="report: history is a list; expected a Monitor or its history"):
        pyparam.report(Transformer(8, 1, 8, 2), path, history=[pyparam.measure({})])
    with pytest.raises(ValueError, match="report: the Monitor's model is gone; pass the model itself"):
        pyparam.report(copy.deepcopy(monitor), path)
    assert not path.exists()
    with pytest.raises(ValueError, match="a history is drawn by its norms or as 'heat', and has no 'tree'"):
        pyparam.plot(monitor.history, "tree")
