"""``log``: what a TensorBoard event file and a wandb run hold afterwards."""

from __future__ import annotations

import itertools
import json
import math
import time
import types

import pytest
import torch
from torch import nn

import pyparam


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 2))


def flawed() -> dict[str, torch.Tensor]:
    return {
        "layer one.weight": torch.tensor([0.0, -1.5, math.nan, 3.25, math.inf, 3.25]),
        "empty": torch.empty(0),
        "nothing finite": torch.full((2,), math.nan),
    }


def counts_between(stats: pyparam.Stats, name: str | None, edges: list[float]) -> list[int]:
    """From the finest bins, those that lie between each edge and the next."""
    fine = stats.histogram(name)
    return [
        int(fine.counts[(fine.lower >= low) & (fine.upper <= high)].sum())
        for low, high in itertools.pairwise(edges)
    ]


# --- TensorBoard ----------------------------------------------------------------------------------------------


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    read.Reload()
    return read


@pytest.fixture
def writer(tmp_path):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as made:
        yield made


def test_the_event_file_has_the_same_counts(writer, tmp_path) -> None:
    model = network()
    stats = pyparam.measure(model, histogram=True)
    pyparam.log(stats, writer, 7)
    pyparam.log(stats, writer, 8)
    writer.flush()
    read = events(tmp_path)
    names = [*stats.names, "total"]
    assert sorted(read.Tags()["histograms"]) == sorted(f"values/{name}" for name in names)
    for name in names:
        key = None if name == "total" else name
        row = stats.total if key is None else stats[name]
        logged = read.Histograms(f"values/{name}")
        assert [event.step for event in logged] == [7, 8]
        held = logged[0].histogram_value
        assert (held.num, held.min, held.max) == (row.numel, row.min, row.max)
        assert held.sum == pytest.approx(row.mean * row.numel, rel=1e-12)
        assert held.sum_squares == pytest.approx(row.l2**2, rel=1e-12)
        assert sum(held.bucket) == row.numel
        assert held.bucket[0] == 0
        assert list(held.bucket[1:]) == counts_between(stats, key, list(held.bucket_limit))
        for scalar, value in (("norm", row.l2), ("mean", row.mean), ("std", row.std), ("nonfinite", 0)):
            (event, _) = read.Scalars(f"{scalar}/{name}")
            assert event.value == pytest.approx(value, rel=1e-6, nan_ok=True)


def test_a_prefix_and_no_histograms(writer, tmp_path) -> None:
    model = network()
    model(torch.ones(3, 40)).sum().backward()
    stats = pyparam.measure(model, grad=True)
    pyparam.log(stats, writer, 0, prefix="gradients")
    writer.flush()
    read = events(tmp_path)
    assert read.Tags()["histograms"] == []
    assert read.Scalars("gradients/norm/0.weight")[0].value == pytest.approx(stats["0.weight"].l2)


def test_values_that_are_not_finite_and_none_at_all(writer, tmp_path) -> None:
    stats = pyparam.measure(flawed(), histogram=True)
    pyparam.log(stats, writer, 1)
    writer.flush()
    read = events(tmp_path)
    (name,) = (tag for tag in read.Tags()["histograms"] if "one" in tag)
    held = read.Histograms(name)[0].histogram_value
    assert held.num == 4
    assert [count for count in held.bucket if count] == [1, 1, 2]
    assert read.Scalars("nonfinite/total")[0].value == 4
    assert not any("empty" in tag or "nothing" in tag for tag in read.Tags()["histograms"])
    assert "mean/empty" not in read.Tags()["scalars"]


@pytest.mark.parametrize("values", [[1e200, -1e-300], [3.4e38, 1e-45], [0.0]])
def test_extremes_can_be_written(writer, tmp_path, values) -> None:
    stats = pyparam.measure({"w": torch.tensor(values, dtype=torch.float64)}, histogram=True)
    pyparam.log(stats, writer, 0)
    writer.flush()
    held = events(tmp_path).Histograms("values/w")[0].histogram_value
    assert sum(held.bucket) == len(values)
    assert list(held.bucket_limit) == sorted(set(held.bucket_limit))


def test_another_writer_with_the_same_methods() -> None:
    calls = []

    class Writer:
        def add_scalar(self, tag, value, step):
            calls.append((tag, value, step))

        def add_histogram_raw(self, tag, **values):
            calls.append((tag, values["num"], values["global_step"]))

    pyparam.log(pyparam.measure({"w": torch.ones(3)}, histogram=True), Writer(), 4)
    assert ("mean/w", 1.0, 4) in calls
    assert ("values/w", 3, 4) in calls


# --- Weights & Biases -----------------------------------------------------------------------------------------


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    return pytest.importorskip("wandb")


@pytest.fixture
def run(wandb, monkeypatch):
    """A run that is never sent anywhere, and what was given to its log."""
    made = wandb.init(mode="disabled")
    made.given = []
    monkeypatch.setattr(
        type(made), "log", lambda self, data, step=None: self.given.append((data, step)), raising=False
    )
    yield made
    made.finish()


def test_a_run_gets_scalars_and_histograms(wandb, run) -> None:
    stats = pyparam.measure(network(), histogram=True)
    pyparam.log(stats, run, 5, prefix="weights")
    ((data, step),) = run.given
    assert step == 5
    assert data["weights/norm/0.weight"] == stats["0.weight"].l2
    assert data["weights/nonfinite/total"] == 0
    for name in (*stats.names, "total"):
        histogram = data[f"weights/values/{name}"]
        assert isinstance(histogram, wandb.Histogram)
        assert histogram.histogram == counts_between(stats, None if name == "total" else name, histogram.bins)
        json.dumps(histogram.to_json())


def test_wide_ranges_fit_into_its_512_bins(run) -> None:
    torch.manual_seed(0)
    values = torch.randn(20_000) * 2.0 ** torch.empty(20_000).uniform_(-140, 120)
    stats = pyparam.measure({"w": values, "v": torch.tensor([0.0, math.nan])}, histogram=True)
    pyparam.log(stats, run, 0)
    histogram = run.given[0][0]["values/w"]
    assert 256 < len(histogram.histogram) <= 512
    assert sum(histogram.histogram) == 20_000
    assert "mean/v" in run.given[0][0]
    pyparam.log(pyparam.measure({"w": torch.full((2,), math.nan)}, histogram=True), run, 0)
    assert set(run.given[1][0]) == {"norm/w", "nonfinite/w", "norm/total", "nonfinite/total"}


@pytest.mark.unsanitized  # wandb's own process is no sanitizer build, and inherits the runtime
def test_an_offline_run_takes_it(wandb, tmp_path) -> None:
    settings = wandb.Settings(silent=True, console="off", disable_git=True)
    with wandb.init(mode="offline", project="pyparam", dir=tmp_path, settings=settings) as run:
        pyparam.log(pyparam.measure(network(), histogram=True), run, 0)
    wandb.teardown()  # another process writes the file, and is done with it when it has ended
    (written,) = (path for path in tmp_path.rglob("offline-run-*/*.wandb"))
    tags = (b"norm/0.weight", b"values/total", b"histogram")
    deadline = time.monotonic() + 20
    while not all(tag in written.read_bytes() for tag in tags) and time.monotonic() < deadline:
        time.sleep(0.1)
    for tag in tags:
        assert tag in written.read_bytes()


# --- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("writer", "words"),
    [
        (None, "log: expected a TensorBoard SummaryWriter or a wandb run to write to, got a NoneType$"),
        ("runs/", "got a str$"),
        (types.ModuleType("wandb"), r"got a module \(pass the run that wandb.init gave\)$"),
    ],
)
def test_another_writer_is_refused(writer, words) -> None:
    with pytest.raises(TypeError, match=words):
        pyparam.log(pyparam.measure(network()), writer, 0)


def test_other_stats_are_refused() -> None:
    with pytest.raises(
        TypeError, match="log: got a Sequential; expected what pyparam.measure gives, a Record or a Monitor"
    ):
        pyparam.log(network(), None, 0)
