"""Stats: columns, rows, merging, histograms by bits, quantiles, underflow, views."""

from __future__ import annotations

import copy
import json
import math
import pickle
import sys

import pytest
import torch
from dtypes import FLOAT8
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_measure import values_of
from torch import Tensor, nn

import pyparam
from pyparam._measure.rows import NUMBERS, finite_or_none
from pyparam._watch.records import share_names

FLOAT_COLUMNS = ("min", "max", "mean", "std", "rms", "l1", "l2", "max_abs")


@pytest.fixture
def stats() -> pyparam.Stats:
    torch.manual_seed(0)
    source = {"a.weight": torch.randn(30, 4), "a.bias": torch.zeros(4), "b": torch.tensor([1.0, math.nan])}
    return pyparam.measure(source, histogram=True, quantiles=(0.25, 0.5))


def test_columns(stats: pyparam.Stats) -> None:
    for name in NUMBERS:
        column = getattr(stats, name)
        assert column.shape == (3,)
        assert column.dtype is (torch.float64 if name in FLOAT_COLUMNS else torch.int64)
        assert [getattr(row, name) for row in stats] == pytest.approx(column.tolist(), nan_ok=True)
    assert stats.names == ["a.weight", "a.bias", "b"]
    assert stats.shape == [(30, 4), (4,), (2,)]
    assert stats.dtype == [torch.float32] * 3
    assert stats.device == [torch.device("cpu")] * 3
    assert stats.quantiles.shape == (3, 2)


def test_rows(stats: pyparam.Stats) -> None:
    row = stats["b"]
    assert (row.name, row.numel, row.nbytes, row.nans, row.mean) == ("b", 2, 8, 1, 1.0)
    assert row == stats[2] == stats[-1] or math.isnan(row.std)
    assert row.quantiles == {0.25: 1.0, 0.5: 1.0}
    assert [r.name for r in stats] == stats.names
    assert len(stats) == 3
    assert "a.bias" in stats
    assert "a" not in stats
    assert stats.total.name == "total"
    assert stats.total.shape is None
    assert stats.total.numel == 126


def test_a_name_or_position_that_is_not_there(stats: pyparam.Stats) -> None:
    with pytest.raises(KeyError, match=r"no entry named 'a.weigth' in stats of 3; close to it: 'a.weight'"):
        stats["a.weigth"]
    with pytest.raises(IndexError, match="position 3 is outside stats of 3 rows"):
        stats[3]
    with pytest.raises(KeyError, match="no entry named 'x' in stats"):
        stats.histogram("x")
    with pytest.raises(KeyError, match="no entry named 'x' in stats"):
        stats.underflow(torch.float16)["x"]


def test_total_of_mixed_dtypes() -> None:
    total = pyparam.measure([torch.ones(2), torch.ones(2).half()]).total
    assert total.dtype is None
    assert str(total.device) == "cpu"
    assert total.nbytes == 12


def test_sort(stats: pyparam.Stats) -> None:
    assert stats.sort("l2").names == ["a.weight", "b", "a.bias"]
    assert stats.sort("l2", descending=False).names == ["a.bias", "b", "a.weight"]
    assert stats.sort("name", descending=False).names == ["a.bias", "a.weight", "b"]
    # NaN last, either way.
    assert stats.sort("std").names[-1] == "b"
    assert stats.sort("std", descending=False).names == ["a.bias", "a.weight", "b"]
    by_size = stats.sort("numel", descending=False)
    assert by_size["a.weight"] == stats["a.weight"]
    assert by_size.total == stats.total
    assert torch.equal(by_size.histogram("a.weight").counts, stats.histogram("a.weight").counts)
    assert by_size.shape == [(2,), (4,), (30, 4)]
    with pytest.raises(ValueError, match="sort: no column 'size'; there are name, numel"):
        stats.sort("size")


def test_sort_keeps_the_order_of_equals() -> None:
    stats = pyparam.measure({name: torch.ones(2) for name in "cab"})
    assert stats.sort("l2").names == ["c", "a", "b"]
    assert stats.sort("l2", descending=False).names == ["c", "a", "b"]


def test_to_dict(stats: pyparam.Stats) -> None:
    found = stats.to_dict()
    assert list(found) == ["parameters", "total", "missing", "unread"]
    assert found["parameters"]["a.weight"]["shape"] == [30, 4]
    assert found["parameters"]["a.weight"]["dtype"] == "torch.float32"
    assert found["parameters"]["a.bias"]["zeros"] == 4
    assert json.loads(json.dumps(finite_or_none(found)))["parameters"]["b"]["std"] is None
    assert "quantiles" not in pyparam.measure([torch.ones(2)]).to_dict()["total"]


def test_to_pandas(stats: pyparam.Stats) -> None:
    frame = stats.to_pandas()
    assert list(frame.index) == stats.names
    assert frame.loc["a.bias", "zeros"] == 4
    assert frame["mean"].tolist() == pytest.approx(stats.mean.tolist())
    assert "q0.25" in frame.columns


def test_to_pandas_without_pandas(stats: pyparam.Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas needs pandas, which is not installed"):
        stats.to_pandas()


def test_repr(stats: pyparam.Stats) -> None:
    lines = repr(stats).splitlines()
    assert lines[0].split() == [
        "name",
        "shape",
        "dtype",
        "mean",
        "std",
        "min",
        "max",
        "zeros",
        "nonfinite",
        "q0.25",
        "q0.5",
    ]
    assert lines[1].startswith("a.weight  30×4")
    assert lines[-1].startswith("total")
    assert len(lines) == 5


def test_repr_of_many_rows_is_cut() -> None:
    text = repr(pyparam.measure([torch.ones(1)] * 500))
    assert len(text.splitlines()) == 23
    assert "... 480 more" in text


def test_repr_tells_of_missing_gradients() -> None:
    assert repr(pyparam.measure(nn.Linear(2, 2), grad=True)).endswith("2 without a gradient")


def test_html_escapes_names() -> None:
    html = pyparam.measure({"<b>&": torch.ones(2)})._repr_html_()
    assert "&lt;b&gt;&amp;" in html
    assert "<b>" not in html
    assert "480 more" in pyparam.measure([torch.ones(1)] * 500)._repr_html_()


# Merging


def test_shards_merge_into_the_whole() -> None:
    x = torch.randn(10_000, dtype=torch.float64) + 100
    y = torch.cat([torch.tensor([math.inf, math.nan]), torch.zeros(3)])
    whole = pyparam.measure({"x": x, "y": y}, histogram=True, quantiles=(0.5,))
    a = pyparam.measure({"x": x[:3000], "y": y[:2]}, histogram=True, quantiles=(0.5,))
    b = pyparam.measure({"y": y[2:], "x": x[3000:]}, histogram=True, quantiles=(0.5,))
    merged = a + b
    assert merged.names == ["x", "y"]
    for name in NUMBERS:
        assert torch.allclose(
            getattr(merged, name).double(), getattr(whole, name).double(), rtol=1e-12, equal_nan=True
        )
    assert merged.total.std == pytest.approx(whole.total.std, rel=1e-12)
    for name in ("x", "y", None):
        for one, other in zip(merged.histogram(name), whole.histogram(name), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(merged.quantiles, whole.quantiles)
    assert torch.equal(merged.underflow(torch.float16).zero, whole.underflow(torch.float16).zero)
    # The shards' shapes differ.
    assert merged.shape[0] is None
    assert merged.dtype[0] is torch.float64


def test_steps_merge_and_names_come_from_both() -> None:
    a = pyparam.measure({"x": torch.ones(2), "y": torch.zeros(3)})
    b = pyparam.measure({"z": torch.full((1,), 5.0), "x": torch.zeros(2)})
    merged = sum([a, b])
    assert isinstance(merged, pyparam.Stats)
    assert merged.names == ["x", "y", "z"]
    assert merged["x"].mean == 0.5
    assert merged["x"].shape == (2,)
    assert merged["y"].numel == 3
    assert merged.total.numel == 8
    assert merged.total.l1 == 7.0


def test_merging_loses_no_precision() -> None:
    x = 1e8 + torch.randn(40_000, dtype=torch.float64) * 1e-5
    whole = pyparam.measure([x])[0]
    merged = sum(pyparam.measure([part]) for part in x.split(1000))
    assert isinstance(merged, pyparam.Stats)
    assert merged[0].std == pytest.approx(whole.std, rel=1e-12)
    assert merged.total.std == pytest.approx(whole.std, rel=1e-12)


def test_merging_what_float64_cannot_square() -> None:
    parts = [torch.full((10,), value, dtype=torch.float64) for value in (1e200, 3e200, 1e-200)]
    merged = sum(pyparam.measure([part]) for part in parts)
    assert isinstance(merged, pyparam.Stats)
    assert merged[0].l2 == pytest.approx(1e200 * 10, rel=1e-12)
    assert merged[0].mean == pytest.approx(4e200 / 3, rel=1e-12)


def test_missing_gradients_when_merging() -> None:
    w = torch.ones(2, requires_grad=True)
    without = pyparam.measure({"w": w, "v": w.detach()}, grad=True)
    w.grad = torch.ones(2)
    merged = without + pyparam.measure({"w": w, "v": w.detach()}, grad=True)
    assert merged.names == ["w"]
    assert merged.missing == ["v"]


def test_merging_with_something_else(stats: pyparam.Stats) -> None:
    with pytest.raises(TypeError):
        stats + 1  # type: ignore[operator]


# Histograms


def bits(tensor: Tensor) -> Tensor:
    x = values_of(tensor).float()
    return x.view(torch.int32)[torch.isfinite(x)]


def expected_counts(tensor: Tensor) -> dict[int, int]:
    """Counts by the upper half of the float32, minus zero with plus zero."""
    upper = torch.where(bits(tensor) == -(2**31), 0, bits(tensor)) >> 16
    keys, counts = upper.unique(return_counts=True)
    return dict(zip((keys & 0xFFFF).tolist(), counts.tolist(), strict=True))


def found_counts(stats: pyparam.Stats, name: str | None) -> dict[int, int]:
    h = stats.histogram(name)
    inner = torch.where(h.upper <= 0, h.upper, h.lower)
    keys = (inner.float().view(torch.int32) >> 16) & 0xFFFF
    # The bin of the tiniest negatives ends at 0.
    keys = torch.where((h.upper <= 0) & (inner == 0), 0x8000, keys)
    return dict(zip(keys.tolist(), h.counts.tolist(), strict=True))


@pytest.mark.parametrize("count", [0, 1, 5, 1000, 1023, 1024, 5000, 70_000, 300_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_histograms_count_exactly(count: int, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(count)
    x = (torch.randn(count, generator=g) * 0.02).to(dtype)
    x[::11] = 0.0
    x[1::13] = -0.0
    if count > 20:
        x[3], x[5], x[7] = math.nan, math.inf, -math.inf
    stats = pyparam.measure({"x": x, "y": torch.ones(3)}, histogram=True)
    assert found_counts(stats, "x") == expected_counts(x)
    assert found_counts(stats, None) == expected_counts(torch.cat([x.double(), torch.ones(3).double()]))
    assert stats.histogram().counts.sum() == stats._counts[-1, -1]


def test_histograms_of_any_bits() -> None:
    g = torch.Generator().manual_seed(1)
    x = torch.randint(-(2**31), 2**31, (300_001,), generator=g).to(torch.int32).view(torch.float32)
    x[:1000] = torch.arange(1000, dtype=torch.int32).view(torch.float32)
    x[1000:2000] = -x[:1000]
    for part in (x, x[:900], x[500:1500]):
        assert found_counts(pyparam.measure({"x": part}, histogram=True), "x") == expected_counts(part)


def test_histogram_edges_ascend_and_hold_their_values() -> None:
    x = torch.tensor([-3.0, -2.0, -1e-42, -0.0, 0.0, 1e-42, 1.0, 1.5, 3e38])
    h = pyparam.measure([x], histogram=True).histogram("0")
    assert (h.lower < h.upper).all()
    assert (h.lower[1:] >= h.upper[:-1]).all()
    assert h.counts.tolist() == [1, 1, 1, 3, 1, 1, 1]
    assert h.lower.tolist()[3] == 0.0


def test_values_beyond_float32_count_in_the_outermost_bins() -> None:
    x = torch.tensor([1e300, -1e300, 1e39, 1e-300, -1e-300, 0.0, math.inf, 1.0], dtype=torch.float64)
    for copies in (1, 300):
        h = pyparam.measure({"x": x.repeat(copies)}, histogram=True).histogram("x")
        assert (h.counts / copies).tolist() == [1, 3, 1, 2]
        assert h.upper[-1] == 2.0**128


@pytest.mark.parametrize("dtype", [torch.bfloat16, *FLOAT8[:4]], ids=str)
def test_quantiles_are_exact_where_a_bin_has_one_value(dtype: torch.dtype) -> None:
    x = torch.randn(3001, generator=torch.Generator().manual_seed(0)).to(dtype)
    q = torch.linspace(0, 1, 13, dtype=torch.float64)
    found = pyparam.measure([x], histogram=True).quantile(q.tolist())
    assert torch.allclose(found[0], x.double().quantile(q), rtol=1e-14, atol=0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_order_statistics_are_within_the_stated_error(values: list[float], points: list[float]) -> None:
    x = torch.tensor(values)
    n = len(values)
    at = [round(q * (n - 1)) / max(1, n - 1) for q in points]
    found = pyparam.measure([x], histogram=True).quantile(at)[0]
    ordered = x.double().sort().values
    for q, got in zip(at, found.tolist(), strict=True):
        rank = q * (n - 1)
        low, high = ordered[math.floor(rank)].item(), ordered[math.ceil(rank)].item()
        slack = 2.0**-133 + max(abs(low), abs(high)) * 2.0**-7
        assert low - slack <= got <= high + slack


def test_quantiles_of_much_data_are_much_closer() -> None:
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0)) * 0.02
    points = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
    stats = pyparam.measure([x], quantiles=points)
    exact = x.double().quantile(torch.tensor(points, dtype=torch.float64))
    assert torch.allclose(stats.quantiles[0], exact, rtol=1e-3, atol=1e-5)
    assert stats.quantiles[0, 0] == exact[0]
    assert stats.quantiles[0, -1] == exact[-1]
    assert stats[0].quantiles[0.5] == stats.quantiles[0, 3]


def test_quantile_shapes(stats: pyparam.Stats) -> None:
    assert stats.quantile(0.5).shape == (3,)
    assert stats.quantile([0.5, 1]).shape == (3, 2)
    assert stats.quantile([]).shape == (3, 0)
    assert pyparam.measure([torch.empty(0)], histogram=True).quantile(0.5).isnan().all()
    with pytest.raises(ValueError, match=r"quantile: expected numbers in \[0, 1\], got 2"):
        stats.quantile(2)


def test_without_a_histogram() -> None:
    stats = pyparam.measure([torch.ones(3)])
    for verb in (lambda: stats.quantile(0.5), stats.histogram, lambda: stats.underflow(torch.float16)):
        with pytest.raises(ValueError, match="no histogram was counted; measure with histogram=True"):
            verb()
    assert stats.quantiles.shape == (1, 0)


# Underflow

TARGETS = [torch.float16, torch.bfloat16, *FLOAT8[:4], torch.float32]
LARGEST = {dtype: torch.finfo(dtype).max for dtype in TARGETS}


def expected_fates(x: Tensor, dtype: torch.dtype) -> tuple[float, float, float]:
    """By converting. float8_e4m3fn does not show its overflow in every version: halfway to the next number."""
    converted = x.to(dtype).double()
    finite = torch.isfinite(x.double())
    nonzero = finite & (x != 0)
    zero = nonzero & (converted == 0)
    subnormal = nonzero & (converted != 0) & (converted.abs() < torch.finfo(dtype).tiny)
    overflow = finite & ~torch.isfinite(converted)
    if dtype is torch.float8_e4m3fn:
        overflow = finite & (x.double().abs() > 464)
        subnormal &= ~overflow
    return tuple(int(part.sum()) / x.numel() for part in (zero, subnormal, overflow))  # type: ignore[return-value]


def all_halves(dtype: torch.dtype) -> Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("source", [torch.float16, torch.bfloat16], ids=str)
def test_underflow_of_every_pattern(source: torch.dtype, target: torch.dtype) -> None:
    x = all_halves(source)
    fates = pyparam.measure({"x": x}, histogram=True).underflow(target)
    assert fates["x"] == expected_fates(x, target)
    assert fates.total == fates["x"]


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("count", [700, 100_000])
def test_underflow_of_any_float32(target: torch.dtype, count: int) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(-(2**31), 2**31, (count,), generator=g).to(torch.int32).view(torch.float32)
    edges = torch.tensor([0x3A800000, 0x387FE000, 0x477FF000, 0x00008000, 0x007F8000, 0x7F7F8000, 0x43E80000])
    near = (edges.unsqueeze(1) + torch.arange(-20, 21)).flatten().to(torch.int32).view(torch.float32)
    x[: near.numel()] = near
    assert pyparam.measure({"x": x}, histogram=True).underflow(target)["x"] == expected_fates(x, target)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_underflow_of_ordinary_weights(target: torch.dtype) -> None:
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 0.02
    x[::9] = 0
    for part in (x, x[1:500], x.double() * 1e-3, x.double() * 1e-45, x.double() * 1e39):
        fates = pyparam.measure({"x": part}, histogram=True).underflow(target)
        assert fates["x"] == expected_fates(part, target)


def test_underflow_reads_well_and_refuses_other_types(stats: pyparam.Stats) -> None:
    assert repr(stats.underflow(torch.float16)) == (
        "Underflow to torch.float16 of 3 parameters: 0.000% become zero, 0.000% subnormal, 0.000% overflow"
    )
    with pytest.raises(ValueError, match=r"underflow: expected one of torch.float16, .*, got torch.int8"):
        stats.underflow(torch.int8)
    empty = pyparam.measure([torch.empty(0)], histogram=True).underflow(torch.float16)
    assert math.isnan(empty.total.zero)


@pytest.mark.parametrize("bins_per_octave", [1, 2, 8, 64, 128])
def test_coarser_histograms_keep_every_count(bins_per_octave):
    values = torch.cat(
        [torch.randn(2000), torch.zeros(7), torch.tensor([1e-40, -1e-40, 3.4e38, -3.4e38, 1.0, -1.0])]
    )
    stats = pyparam.measure([values], histogram=True)
    fine, coarse = stats.histogram("0"), stats.histogram("0", bins_per_octave=bins_per_octave)
    assert int(coarse.counts.sum()) == len(values)
    assert (coarse.lower[1:] >= coarse.upper[:-1]).all()
    for lower, upper, count in zip(*(column.tolist() for column in coarse), strict=True):
        inside = (fine.lower >= lower) & (fine.upper <= upper)
        assert int(fine.counts[inside].sum()) == count
    normal = coarse.lower > 1e-30
    assert ((coarse.upper / coarse.lower)[normal] <= 1 + 1 / bins_per_octave).all()
    assert coarse.lower.min() < -3.3e38
    assert coarse.upper.max() == 2.0**128


@pytest.mark.parametrize("bins_per_octave", [0, 3, 256, -1])
def test_a_wrong_number_of_bins(bins_per_octave):
    stats = pyparam.measure([torch.ones(2)], histogram=True)
    with pytest.raises(ValueError, match="bins_per_octave must be a power of two from 1 to 128, got"):
        stats.histogram(bins_per_octave=bins_per_octave)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))], ids=["copy", "pickle"]
)
def test_stats_are_copied_and_pickled(copied):
    stats = pyparam.measure(
        {"a": torch.randn(3, 4), "b": torch.ones(2, dtype=torch.bfloat16)}, quantiles=[0.5]
    )
    other = copied(stats)
    assert repr(other) == repr(stats)
    assert other["a"] == stats["a"]
    assert other.total == stats.total
    assert torch.equal((other + stats).quantiles, (stats + stats).quantiles)


def test_names_of_a_table_are_read_once_for_all_stats_of_it():
    table = pyparam.walk(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)))
    first, second = pyparam.measure(table), pyparam.measure(table)
    other = pyparam.measure(pyparam.walk(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 2))))
    named = pyparam.measure(dict(zip(table.names, table.tensors, strict=True)))
    for stats in (second, named):
        share_names(stats, first)
        assert stats.names is first.names
    share_names(other, first)
    assert other.names == ["1.weight", "1.bias"]
    assert len(first) == len(first.names) == 4
