"""``plot``: what figures hold, their axes and labels, and what is refused in which words."""

from __future__ import annotations

import io
import itertools
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("matplotlib")

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch

import pyparam
from pyparam._cli.demo import mixture, net
from pyparam._view.groups import alike, layers, starred
from pyparam._view.plot_spectrum import singular_values

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("hist", "norms", "spectrum", "tree")


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Conv1d(12, 4, 3), nn.Linear(5, 3))


def texts(figure: Figure) -> str:
    found = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    return "\n".join(found)


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    return buffer.getvalue()


def shown(figure: Figure) -> list[matplotlib.axes.Axes]:
    return [axes for axes in figure.axes if axes.get_visible() and axes.get_label() != "<colorbar>"]


# --- every kind -----------------------------------------------------------------------------------------------


def test_it_draws_and_leaves_pyplot_and_its_settings_alone() -> None:
    code = f"""
import sys, torch, matplotlib
before = dict(matplotlib.rcParams)
import pyparam
from pyparam._cli.demo import net
for kind in {KINDS}:
    figure = pyparam.plot(net(), kind)
    figure.savefig({os.devnull!r}, format="png")
    assert figure._repr_png_().startswith(b"\\x89PNG")
    assert isinstance(figure, matplotlib.figure.Figure)
assert dict(matplotlib.rcParams) == before
assert "matplotlib.pyplot" not in sys.modules
"""
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_style_of_the_user_s_does_not_change_it(kind) -> None:
    plain = png(pyparam.plot(small(), kind))
    changed = {"axes.facecolor": "black", "text.color": "white", "xtick.color": "white", "axes.grid": True}
    with matplotlib.rc_context({**changed, "axes.labelcolor": "red", "figure.facecolor": "black"}):
        assert png(pyparam.plot(small(), kind)) == plain


@pytest.mark.parametrize("kind", KINDS)
def test_one_parameter_and_names_that_are_no_formulas(kind) -> None:
    tricky = {"a$b_{1}$.we\\ight\n$": torch.arange(12.0).reshape(3, 4) + torch.eye(3, 4)}
    figure = pyparam.plot(tricky, kind)
    assert png(figure).startswith(b"\x89PNG")
    one = pyparam.plot([torch.full((2, 2), 3.0) + torch.eye(2)], kind)
    assert png(one).startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_parameters_are_put_together_quickly(kind) -> None:
    model = mixture(layers=6, experts=256)
    begin = time.perf_counter()
    figure = pyparam.plot(model, kind)
    png(figure)
    assert time.perf_counter() - begin < 20
    assert len(shown(figure)) <= 12
    words = {
        "hist": "4,663 parameters in 12 panels",
        "norms": "4,663 parameters",
        "spectrum": "The 32 largest of 4,639 matrices",
        "tree": "Alike modules are one cell",
    }
    assert words[kind] in texts(figure)


def test_hist_is_the_default_and_does_no_statistics_of_its_own(monkeypatch) -> None:
    calls = []
    measure = pyparam._view.plot.measure
    monkeypatch.setattr(pyparam._view.plot, "measure", lambda *a, **k: calls.append(k) or measure(*a, **k))
    figure = pyparam.plot(small())
    assert calls == [{"histogram": True}]
    assert shown(figure)[0].get_xscale() == "symlog"


# --- hist -----------------------------------------------------------------------------------------------------


def test_the_bars_of_a_histogram_are_the_shares_of_the_values() -> None:
    values = torch.cat([torch.full((30,), 1.0), torch.full((50,), -0.25), torch.zeros(20)])
    (axes,) = shown(pyparam.plot({"w": values}, "hist"))
    assert (axes.get_xscale(), axes.get_yscale()) == ("symlog", "log")
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")) == (
        "value",
        "values per octave",
        "w",
    )
    shares = {}
    for bar in axes.patches:
        assert isinstance(bar, StepPatch)
        heights, edges, _ = bar.get_data()
        for low, high, height in zip(edges, edges[1:], heights, strict=False):
            if low < 0 < high:
                shares[0.0] = height
            elif height > 0:
                shares[low if low > 0 else high] = height * abs(math.log2(abs(high) / abs(low)))
    assert shares == pytest.approx({1.0: 0.3, -0.25: 0.5, 0.0: 0.2})
    assert "100\n20.0% zero" in texts(axes.figure)


def test_shares_of_complex_numbers_are_of_their_parts() -> None:
    (axes,) = shown(pyparam.plot({"c": torch.tensor([1 + 1j, 1 + 1j])}, "hist"))
    heights, edges, _ = axes.patches[0].get_data()
    assert heights[0] * math.log2(edges[1] / edges[0]) == pytest.approx(1.0)


def test_panels_and_what_they_say() -> None:
    model = small()
    with torch.no_grad():
        model[3].bias[0] = math.nan
        model[0].bias.zero_()
    figure = pyparam.plot(model, "hist")
    titles = [axes.get_title(loc="left") for axes in shown(figure)]
    assert titles == [name for name, _ in model.named_parameters()]
    assert "1 not finite" in texts(figure)
    assert "12\nall zero" in texts(figure)
    for axes in shown(figure):
        low, high = axes.get_xlim()
        assert low == -high
        for bar in axes.patches:
            edges = bar.get_data()[1]
            assert low <= edges.min() <= edges.max() <= high


def test_tick_labels_do_not_meet() -> None:
    torch.manual_seed(0)
    for scale in (1e-12, 1e-3, 1.0, 1e30):
        figure = pyparam.plot(
            [torch.randn(4000) * scale * 10 ** torch.empty(4000).uniform_(-9, 0)] * 3, "hist"
        )
        figure.canvas.draw()
        for axes in shown(figure):
            boxes = [t.get_window_extent() for t in axes.get_xticklabels() if t.get_text()]
            boxes = sorted(boxes, key=lambda box: box.x0)
            assert len(boxes) >= 3
            assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


def test_extreme_values_have_a_place() -> None:
    for values in (
        torch.tensor([3.4e38, -3.4e38, 1e-45]),
        torch.tensor([1e300, 1e-300], dtype=torch.float64),
        torch.zeros(3),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j]),
        torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
        torch.arange(5),
    ):
        for kind in ("hist", "norms"):
            assert png(pyparam.plot({"w": values}, kind))


def test_of_stats() -> None:
    model = small()
    for kind in ("hist", "norms"):
        from_stats = pyparam.plot(pyparam.measure(model, histogram=True), kind)
        assert png(from_stats) == png(pyparam.plot(model, kind))
    model[3](torch.ones(2, 5)).sum().backward()
    assert "3.weight" in texts(pyparam.plot(pyparam.measure(model, grad=True), "norms"))


# --- norms ----------------------------------------------------------------------------------------------------


def test_norms_by_name() -> None:
    model = small()
    with torch.no_grad():
        model[0].bias.zero_()
        model[3].weight[0, 0] = math.inf
    figure = pyparam.plot(model, "norms")
    left, right = shown(figure)
    assert (left.get_xscale(), left.get_xlabel()) == ("log", "L2 norm")
    assert (right.get_xscale(), right.get_xlabel()) == ("log", "RMS")
    names = [name for name, _ in model.named_parameters()]
    assert [tick.get_text() for tick in left.get_yticklabels()] == names
    stats = pyparam.measure(model)
    points = {}
    for line in left.lines:
        points |= dict(zip(line.get_ydata(), line.get_xdata(), strict=True))
    assert points == {i: v for i, v in enumerate(stats.l2.tolist()) if v > 0}
    assert "1 of norm zero (0). 1 with non-finite values (red)" in texts(figure)


def test_norms_along_a_larger_model() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(30)))
    figure = pyparam.plot(model, "norms")
    upper, lower = shown(figure)
    assert (upper.get_yscale(), lower.get_yscale()) == ("log", "log")
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("L2 norm", "RMS")
    assert {len(line.get_xdata()) for line in upper.lines} == {30}
    assert "*.weight (30)" in texts(figure)
    assert "*.bias (30)" in texts(figure)


# --- spectrum -------------------------------------------------------------------------------------------------


def test_singular_values_are_those_of_the_matrices() -> None:
    model = small()
    figure = pyparam.plot(model, "spectrum")
    (axes,) = shown(figure)
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "singular value")
    found = {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}
    assert list(found) == ["0.weight", "2.weight", "3.weight"]
    for name, values in found.items():
        matrix = model.get_parameter(name).detach().flatten(1).double()
        np.testing.assert_allclose(values, torch.linalg.svdvals(matrix).numpy(), rtol=1e-4)
    assert "2.weight  4×36" in texts(figure)


def test_large_matrices_by_subspace_iteration() -> None:
    torch.manual_seed(3)
    left, right = torch.linalg.qr(torch.randn(1150, 300)).Q, torch.linalg.qr(torch.randn(1050, 300)).Q
    wanted = 10.0 ** -torch.linspace(0, 3, 300)
    state = torch.get_rng_state()
    values, exact = singular_values((left * wanted) @ right.T)
    assert not exact
    assert len(values) == 128
    torch.testing.assert_close(values, wanted[:128], rtol=2e-2, atol=0)
    torch.testing.assert_close(values[:64], wanted[:64], rtol=1e-4, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    again, _ = singular_values((left * wanted) @ right.T)
    assert torch.equal(values, again)
    figure = pyparam.plot({"w": (left * wanted) @ right.T}, "spectrum")
    assert "1 by subspace iteration, their 128 largest values" in texts(figure)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.complex64, torch.int32, torch.float8_e5m2]
)
def test_matrices_of_other_dtypes(dtype) -> None:
    matrix = (torch.arange(12.0).reshape(3, 4) + 4 * torch.eye(3, 4)).to(dtype)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    values, exact = singular_values(matrix)
    assert exact
    torch.testing.assert_close(values.double(), torch.linalg.svdvals(matrix.to(wide)), rtol=1e-5, atol=1e-6)


def test_a_spectrum_leaves_out_what_cannot_be_read() -> None:
    figure = pyparam.plot({"sparse": torch.eye(4).to_sparse(), "w": torch.randn(4, 4)}, "spectrum")
    (axes,) = shown(figure)
    assert [line.get_label() for line in axes.lines] == ["w"]
    assert "1 left out that cannot be read: sparse." in texts(figure)


def test_rank_deficient_and_flawed_matrices() -> None:
    low = torch.ones(6, 6)
    low[0] *= 3
    figure = pyparam.plot({"low": low, "bad": torch.full((3, 3), math.nan)}, "spectrum")
    (axes,) = shown(figure)
    assert [len(line.get_ydata()) for line in axes.lines] == [1]
    assert "1 left out for non-finite values: bad." in texts(figure)
    with pytest.raises(ValueError, match="plot: no spectrum: 'bad' has non-finite values$"):
        pyparam.plot({"bad": torch.full((3, 3), math.nan)}, "spectrum")
    with pytest.raises(
        ValueError, match="'spectrum' needs a parameter of two dimensions or more.*none of 1 parameter"
    ):
        pyparam.plot({"b": torch.ones(3)}, "spectrum")


def test_zero_matrices_have_no_line_but_are_no_error() -> None:
    figure = pyparam.plot({"zero": torch.zeros(3, 3), "one": torch.eye(3)}, "spectrum")
    assert png(figure)


def test_tied_matrices_are_drawn_once() -> None:
    shared = torch.randn(4, 5)
    (axes,) = shown(pyparam.plot({"a": shared, "b": shared}, "spectrum"))
    assert [line.get_label() for line in axes.lines] == ["a"]


# --- tree -----------------------------------------------------------------------------------------------------


def cells(figure: Figure) -> dict[str, float]:
    (axes,) = shown(figure)
    return {str(p.get_gid()): p.get_height() for p in axes.patches if isinstance(p, Rectangle)}


def test_the_tree_is_as_high_as_the_parameters() -> None:
    figure = pyparam.plot(net(), "tree")
    found = cells(figure)
    assert found["0.block 0 – block 3"] == 304
    assert found["1"] == 5
    assert "Sequential: 309 values" in texts(figure)
    assert "4 × Sequential" in texts(figure)


def test_the_tree_counts_shared_storage_once_where_it_comes_first() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 4)
            self.inner = nn.ModuleDict({"a": nn.Linear(4, 10, bias=False), "b": nn.Linear(4, 4)})
            self.inner["a"].weight = self.embed.weight
            self.again = self.inner["b"]

    figure = pyparam.plot(Tied(), "tree")
    assert "60 values" in texts(figure)
    assert "Shared ones count once" in texts(figure)
    assert sum(p.get_height() for p in shown(figure)[0].patches if p.get_x() == 0) == 60
    assert cells(figure)["embed.weight"] == 40


def test_the_tree_needs_no_values_and_works_without_modules() -> None:
    with torch.device("meta"):
        model = small()
    assert cells(pyparam.plot(model, "tree")) == cells(pyparam.plot(small().state_dict(), "tree"))
    deep = nn.Linear(2, 2)
    for _ in range(3000):
        deep = nn.Sequential(deep)
    assert "6 values" in texts(pyparam.plot(deep, "tree"))


# --- history --------------------------------------------------------------------------------------------------


def test_a_list_of_stats_over_steps() -> None:
    model = small()
    history = []
    for _ in range(4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5)
        history.append(pyparam.measure(model))
    (axes,) = shown(pyparam.plot(history))
    assert (axes.get_yscale(), axes.get_ylabel(), axes.get_xlabel()) == ("log", "RMS of weights", "step")
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == [name for name, _ in model.named_parameters()]
    for name, line in lines.items():
        assert list(line.get_xdata()) == [0, 1, 2, 3]
        np.testing.assert_allclose(line.get_ydata(), [stats[name].rms for stats in history], rtol=1e-9)
    (axes,) = shown(pyparam.plot({100 * i: stats for i, stats in enumerate(history)}, "norms"))
    assert list(axes.lines[0].get_xdata()) == [0, 100, 200, 300]


def test_a_monitor_s_history() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(12)))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pyparam.Monitor(model, every=1).attach(optimizer) as monitor:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 4)).square().mean().backward()
            optimizer.step()
    figure = pyparam.plot(monitor.history)
    weights, gradients, updates = shown(figure)
    assert [a.get_ylabel() for a in (weights, gradients, updates)] == [
        "RMS of weights",
        "RMS of gradients",
        "update / weight",
    ]
    assert {a.get_yscale() for a in (weights, gradients, updates)} == {"log"}
    assert [line.get_label() for line in weights.lines] == [str(i) for i in range(12)]
    record = monitor.history[1]
    both = math.hypot(*record.update_norms[:2].tolist()) / math.hypot(
        *(record.update_norms / record.update_ratios)[:2].tolist()
    )
    assert updates.lines[0].get_ydata()[1] == pytest.approx(both)
    assert "A line a layer, of 24 parameters." in texts(figure)


def test_a_history_with_gaps_and_non_finite_values() -> None:
    one, two = (
        pyparam.measure({"a": torch.ones(3)}),
        pyparam.measure({"a": torch.tensor([1.0, math.nan]), "b": torch.ones(2)}),
    )
    figure = pyparam.plot([one, two])
    (axes,) = shown(figure)
    assert [len(line.get_xdata()) for line in axes.lines[:2]] == [2, 1]
    assert "Red crosses: steps with non-finite weights" in texts(figure)


# --- what is put together -------------------------------------------------------------------------------------


def test_names_are_alike_but_for_places_in_lists() -> None:
    assert starred("layers.3.weight") == "layers.*.weight"
    assert starred("0.block 1.0.bias") == "*.block *.*.bias"
    assert starred("layer4.0.conv1.weight") == "layer4.*.conv1.weight"
    names = [f"h.{i}.{part}" for i in range(5) for part in ("w", "b", "g")] + ["head"]
    groups = alike(names, [10 if name[-1] == "w" else 1 for name in names], 3)
    assert [group.label for group in groups] == ["h.*.w", "h.*.b", "all others"]
    assert sorted(i for group in groups for i in group.rows) == list(range(16))


def test_layers_are_as_fine_as_fits() -> None:
    names = [f"h.{i}.{part}.w" for i in range(10) for part in ("attn", "mlp")]
    assert [g.label for g in layers(names, 64)[0]] == [name[:-2] for name in names]
    assert [g.label for g in layers(names, 12)[0]] == [f"h.{i}" for i in range(10)]
    assert [g.label for g in layers(names, 5)[0]] == ["h"]
    flat = [f"p{i}" for i in range(70)]
    assert len(layers(flat, 64)[0]) == 70
    assert png(pyparam.plot([pyparam.measure({name: torch.ones(2) for name in flat})]))


# --- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "kind", "error", "words"),
    [
        (lambda: net(), "histogram", ValueError, "plot: no kind 'histogram'; there are 'hist', 'norms', 'spectrum', 'tree'"),
        (dict, "hist", ValueError, "plot: there is nothing to plot: the source has no parameters"),
        (nn.ReLU, "norms", ValueError, "plot: there is nothing to plot: the source has no parameters"),
        (nn.ReLU, "tree", ValueError, "plot: there is nothing to plot: the source has no parameters"),
        (list, None, ValueError, "plot: there is nothing to plot: the list is empty"),
        (lambda: [torch.empty(0)], "hist", ValueError, "no value of the source is finite"),
        (lambda: nn.Linear(2, 2, device="meta"), "hist", ValueError, "plot: parameter 'weight' is on the meta device"),
        (lambda: nn.Linear(2, 2, device="meta"), "spectrum", ValueError, "plot: parameter 'weight' is on the meta"),
        (lambda: [torch.eye(3).to_sparse()], "norms", TypeError, "plot: parameter '0' is sparse"),
        (lambda: 3, "hist", TypeError, "an int is no source of parameters"),
        (lambda: ["x"], "hist", TypeError, "entry 0 is of type str; expected a tensor"),
        (lambda: pyparam.measure(net()), "hist", ValueError, "'hist' needs histograms, and these Stats have none"),
        (lambda: pyparam.measure(net()), "tree", TypeError, "'tree' needs the parameters themselves"),
        (lambda: pyparam.measure(net()), "spectrum", TypeError, "'spectrum' needs the parameters themselves"),
        (lambda: [pyparam.measure(net())], "hist", ValueError, "a history is drawn by its norms or as 'heat', and has"),
        (lambda: [pyparam.measure(net()), 3], None, TypeError, "entry 1 of the history is an int; expected Stats"),
        (lambda: {"a": pyparam.measure(net())}, None, TypeError, "steps of a history are numbers, and 'a' is a str"),
        (lambda: [pyparam.measure({})], None, ValueError, "the history has no parameters"),
    ],
)  # fmt: skip
def test_mistakes(source, kind, error, words) -> None:
    with pytest.raises(error, match=words):
        pyparam.plot(source(), kind)


def test_without_matplotlib_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"plot needs matplotlib.*pip install 'pyparam\[plot\]'"):
        pyparam.plot(net())


def test_a_linear_axis_shows_a_normal_as_one_hump() -> None:
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    (axes,) = shown(pyparam.plot({"w": values}, "hist", axis="linear"))
    (stairs,) = axes.patches
    heights, edges, _ = stairs.get_data()
    exact = np.histogram(values.numpy(), edges)[0] / len(values)
    np.testing.assert_allclose(heights, exact, atol=2e-3)
    assert abs(edges[int(np.argmax(heights))]) < 0.4
    assert axes.get_xscale() == "linear"
    figure = pyparam.plot(
        {"a": torch.zeros(4), "b": torch.full((3,), 2.0), "c": torch.arange(5)}, axis="linear"
    )
    assert [np.sum(axes.patches[0].get_data()[0]) for axes in shown(figure)] == pytest.approx([1, 1, 1])


def test_axes_that_there_are_not() -> None:
    with pytest.raises(ValueError, match=r"^plot: axis is 'log' or 'linear', got 'x'$"):
        pyparam.plot({"w": torch.ones(3)}, axis="x")
    with pytest.raises(ValueError, match=r"^plot: axis='linear' is for 'hist'$"):
        pyparam.plot({"w": torch.ones(3)}, "norms", axis="linear")
    with pytest.raises(ValueError, match="no value of the source is finite"):
        pyparam.plot({"w": torch.full((3,), float("nan"))}, axis="linear")
