"""measure: what the columns hold, for every kind of tensor."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dtypes import COMPLEX, FLOAT8, INTEGERS
from hypothesis import given, settings
from hypothesis import strategies as st
from measuring import as_bits, assert_row
from reference_measure import FLOATS, statistics
from torch import Tensor

import pyparam

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support:UserWarning")


def some(dtype: torch.dtype, count: int, seed: int = 0) -> Tensor:
    """Ordinary values, zeros among them."""
    g = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.randint(0, 2, (count,), generator=g).bool()
    if dtype in INTEGERS:
        low = 0 if dtype.is_signed is False else -100
        return torch.randint(low, 100, (count,), generator=g).to(dtype)
    x = torch.randn(count, generator=g, dtype=torch.float64)
    x[torch.rand(count, generator=g) < 0.1] = 0
    if dtype in COMPLEX:
        return torch.complex(x, x.flip(0) * 3).to(dtype)
    if dtype is torch.float8_e8m0fnu:
        x = x.abs() + 0.01
    return x.float().to(dtype) if dtype in FLOAT8 else x.to(dtype)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, *COMPLEX], ids=str)
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 1000, 4096, 4097, 70000, 131072])
def test_every_dtype(dtype: torch.dtype, count: int) -> None:
    x = some(dtype, count, seed=count)
    stats = pyparam.measure([x])
    assert_row(stats[0], x)
    assert_row(stats.total, x)
    assert stats[0].dtype is dtype


def patterns(dtype: torch.dtype) -> Tensor:
    """Every bit pattern of a type of one or two bytes."""
    if dtype.itemsize == 1:
        return torch.arange(256, dtype=torch.uint8).view(dtype)
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, *FLOAT8], ids=str)
def test_every_pattern_of_small_floats(dtype: torch.dtype) -> None:
    x = patterns(dtype)
    assert_row(pyparam.measure([x])[0], x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, *FLOAT8], ids=str)
def test_each_pattern_alone(dtype: torch.dtype) -> None:
    x = patterns(dtype)[:: 1 if dtype.itemsize == 1 else 37]
    stats = pyparam.measure(list(x.unbind()))
    wide = x.float().double()
    finite = torch.isfinite(wide)
    assert torch.equal(stats.min[finite], wide[finite])
    assert stats.min[~finite].isnan().all()
    assert torch.equal(stats.nans.bool(), wide.isnan())


def test_any_bits_of_float32() -> None:
    g = torch.Generator().manual_seed(1)
    x = torch.randint(-(2**31), 2**31, (300_001,), generator=g).to(torch.int32).view(torch.float32)
    assert_row(pyparam.measure([x])[0], x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_denormals(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal
    x = torch.rand(9000, dtype=dtype) * tiny * torch.tensor([1.0, -1.0]).repeat(4500)
    x[5] = tiny
    x[6] = -torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert_row(pyparam.measure([x])[0], x)
    assert pyparam.measure([x])[0].subnormals >= 8998


def test_denormals_while_torch_flushes_them() -> None:
    x = torch.full((5000,), 1e-40)
    plain = pyparam.measure([x])[0]
    if not torch.set_flush_denormal(True):
        pytest.skip("this machine flushes no denormals")
    try:
        flushed = pyparam.measure([x])[0]
        norm = pyparam.total_norm([x])
    finally:
        torch.set_flush_denormal(False)
    assert flushed == plain
    assert plain.subnormals == 5000
    assert plain.l1 == pytest.approx(5e-37, rel=1e-4)
    assert norm.item() > 0


@pytest.mark.parametrize(("mean", "std"), [(1e4, 1e-4), (-1e8, 1e-5), (1.0, 1e-10), (3e5, 0.0)])
def test_cancellation_in_float64(mean: float, std: float) -> None:
    g = torch.Generator().manual_seed(0)
    x = mean + std * torch.randn(200_001, generator=g, dtype=torch.float64)
    assert_row(pyparam.measure([x])[0], x, tolerance=1e-12)


def test_cancellation_in_float32() -> None:
    x = 1e4 + 1e-4 * torch.randn(300_000, generator=torch.Generator().manual_seed(0))
    x[::7] += 0.0009765625
    assert_row(pyparam.measure([x])[0], x, tolerance=1e-12)
    ones = torch.ones(100_000)
    row = pyparam.measure([ones])[0]
    assert (row.mean, row.std, row.l1) == (1.0, 0.0, 100_000.0)


def test_an_outlier_first() -> None:
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(5000, dtype=dtype)
        x[0] = 1e6
        assert_row(pyparam.measure([x])[0], x, tolerance=1e-11)


@pytest.mark.parametrize("scale", [1e-320, 1e-310, 1e-200, 1e-100, 1e150, 1e200, 1e300, 1.7e308])
def test_the_whole_range_of_float64(scale: float) -> None:
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(70_000, generator=g, dtype=torch.float64) - 0.5) * scale
    tolerance = 1e-3 if scale < 1e-315 else 1e-12
    row = pyparam.measure([x])[0]
    expected = statistics(x)
    for name in ("std", "rms", "l2"):
        assert getattr(row, name) == pytest.approx(expected[name], rel=tolerance, abs=0), name
    assert row.max_abs == expected["max_abs"]


def test_ranges_mixed_in_one_tensor() -> None:
    for order in (1, -1):
        parts = [torch.full((70_000,), v, dtype=torch.float64) for v in (1e-200, 0.0, 1.0, 1e200)][::order]
        row = pyparam.measure([torch.cat(parts)])[0]
        assert row.l2 == pytest.approx(1e200 * math.sqrt(70_000), rel=1e-12)
        small = torch.cat([torch.zeros(70_000, dtype=torch.float64), parts[0 if order == 1 else 3]])
        assert pyparam.measure([small])[0].l2 == pytest.approx(1e-200 * math.sqrt(70_000), rel=1e-12)
        total = pyparam.measure(parts).total
        assert total.l2 == pytest.approx(1e200 * math.sqrt(70_000), rel=1e-12)


def test_nonfinite_values_blank_nothing() -> None:
    x = torch.randn(10_000)
    x[17] = math.nan
    x[4096:4100] = math.inf
    x[9_999] = -math.inf
    stats = pyparam.measure({"bad": x, "good": torch.ones(3)})
    assert_row(stats["bad"], x)
    assert (stats["bad"].nans, stats["bad"].posinfs, stats["bad"].neginfs) == (1, 4, 1)
    assert stats["bad"].nonfinite == 6
    assert stats.nonfinite() == ["bad"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("count", [1, 16, 5000])
def test_nothing_finite(value: float, count: int) -> None:
    x = torch.full((count,), value)
    row = pyparam.measure([x])[0]
    assert_row(row, x)
    assert math.isnan(row.mean)
    assert row.l2 == 0
    assert pyparam.measure([x, torch.tensor([2.0, 4.0])]).total.mean == 3.0


def test_one_element() -> None:
    row = pyparam.measure([torch.tensor(-2.5)])[0]
    assert (row.min, row.max, row.mean, row.rms, row.l1, row.max_abs) == (-2.5, -2.5, -2.5, 2.5, 2.5, 2.5)
    assert math.isnan(row.std)
    assert row.shape == ()


def test_empty_tensors_first_middle_and_last() -> None:
    tensors = [torch.empty(0), torch.ones(3), torch.empty(2, 0, 3), torch.full((2,), 4.0), torch.empty(0)]
    stats = pyparam.measure(tensors)
    for row, tensor in zip(stats, tensors, strict=True):
        assert_row(row, tensor)
    assert stats.total.numel == 5
    assert stats.total.mean == 2.2
    assert stats[2].shape == (2, 0, 3)


def test_no_tensors() -> None:
    stats = pyparam.measure([])
    assert len(stats) == 0
    assert stats.total.numel == 0
    assert math.isnan(stats.total.mean)
    assert stats.nonfinite() == []


def layouts() -> dict[str, Tensor]:
    x = torch.randn(12, 7, 10, 9)
    return {
        "transposed": x.transpose(0, 2),
        "channels last": x.to(memory_format=torch.channels_last),
        "rows": x[::2],
        "columns": x[..., ::3],
        "inner": x[:, 1:5, 2:, 3],
        "expanded": torch.randn(5, 1, 3).expand(5, 700, 3),
        "scalar expanded": torch.tensor(2.0).expand(5000),
        "diagonal": torch.randn(300, 300).diagonal(),
        "unfolded": torch.randn(5000).unfold(0, 30, 7),
        "overlapping": torch.randn(100).as_strided((40, 40), (1, 1)),
        "permuted slice": x.permute(3, 1, 0, 2)[1:, ::2],
    }


@pytest.mark.parametrize("name", layouts())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex128, torch.int64, torch.uint8])
def test_layouts(name: str, dtype: torch.dtype) -> None:
    base = layouts()[name]
    view = some(dtype, 200_000, seed=3).as_strided(base.size(), base.stride())
    assert_row(pyparam.measure([view])[0], view)


def test_conjugate_and_negative_views() -> None:
    x = torch.randn(5000, dtype=torch.complex64)
    for view in (x.conj(), x.conj().imag, x[::2].conj()):
        assert_row(pyparam.measure([view])[0], view)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.floats(width=32) | st.sampled_from([0.0, -0.0, 1e-45, math.inf, -math.inf, math.nan]), max_size=70
    ),
    st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    st.lists(st.integers(0, 70), max_size=3),
)
def test_any_values_in_any_pieces(values: list[float], dtype: torch.dtype, cuts: list[int]) -> None:
    x = torch.tensor(values, dtype=torch.float64).to(dtype)
    assert_row(pyparam.measure([x])[0], x, tolerance=1e-12)
    edges = [0, *sorted(min(cut, x.numel()) for cut in cuts), x.numel()]
    pieces = [x[a:b] for a, b in itertools.pairwise(edges)]
    assert_row(pyparam.measure(pieces).total, x, tolerance=1e-12)


def test_the_same_bits_for_any_number_of_threads() -> None:
    g = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(700_001, generator=g),
        torch.randn(333, generator=g),
        torch.randn(400_000, generator=g).bfloat16(),
        torch.randn(1000, 300, generator=g)[:, ::2],
        torch.randn(200_000, generator=g, dtype=torch.float64) * 1e200,
    ]
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(as_bits(pyparam.measure(tensors, histogram=True)))
            norms = [pyparam.total_norm(tensors, p) for p in (1, 2, 2.5)]
            found[-1].append(torch.stack(norms).view(torch.int64))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


FROM_ISA = """
import sys, torch, pyparam
torch.manual_seed(0)
tensors = [torch.randn(n, dtype=torch.float64).to(d) for n in (1, 17, 5000, 70001)
           for d in (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.complex64)]
tensors += [torch.randn(70001).to(torch.float8_e4m3fn), torch.full((5000,), 1e-40), torch.ones(9000) * 3,
            1e5 + torch.randn(9000), torch.tensor([float("nan"), 1.0, float("inf")] * 3000)]
tensors += [(torch.randn(9000) * 1e-5).half(), (torch.randn(9000) * 1e-39).bfloat16(), 1e3 + torch.randn(9000).half()]
tensors += [(torch.randn(n % 256 + 1) * (n % 5)).to(d) for n in range(99)
            for d in (torch.float32, torch.bfloat16, torch.float16)]
tensors += [torch.randn(9001).mul(torch.exp2(torch.randint(-60, 60, (9001,)))).relu_().to(d)
            for d in (torch.float32, torch.bfloat16)]
stats = pyparam.measure(tensors, histogram=True)
plain = pyparam.measure(tensors)  # few values and 16-bit ones go other ways without bins to count
norms = [pyparam.total_norm([t], p) for t in tensors for p in (0, 1, 2, 3.5, float("inf"), float("-inf"))]
torch.save([stats._values, stats._counts, plain._values, plain._counts, *stats._bins, torch.stack([n.double() for n in norms])], sys.argv[1])
"""


def test_the_same_bits_for_any_vector_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for isa in ("baseline", "avx2", "avx512bw", "best"):
        monkeypatch.setenv("PYPARAM_ISA", isa)
        monkeypatch.setenv("PYTHONPATH", str(Path(pyparam.__file__).parents[1]))
        target = tmp_path / isa
        subprocess.run([sys.executable, "-c", FROM_ISA, str(target)], check=True)
        results.append(torch.load(target))
    values, counts, plain_values, plain_counts = results[0][:4]
    assert torch.equal(values.view(torch.int64), plain_values.view(torch.int64))
    assert torch.equal(counts, plain_counts)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            a, b = (t.view(torch.int64) if t.is_floating_point() else t for t in (a, b))
            assert torch.equal(a, b)
