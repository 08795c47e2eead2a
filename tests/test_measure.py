"""measure: what the columns hold, for every kind of tensor."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_measure import COMPLEX, FLOAT8, FLOATS, INTEGERS, statistics
from torch import Tensor, nn

import pyparam
from pyparam._base.native import _C

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support:UserWarning")

COUNTS = ("numel", "nbytes", "zeros", "nans", "posinfs", "neginfs", "subnormals")
EXACT = (*COUNTS, "min", "max", "max_abs")


def assert_row(row: pyparam.Stats, tensor: Tensor, tolerance: float = 1e-13) -> None:
    expected = statistics(tensor)
    for name in EXACT:
        got = getattr(row, name)
        same = got == expected[name] or (math.isnan(got) and math.isnan(expected[name]))
        assert same, (name, got, expected[name])
    # A mean is as exact as the magnitudes that went into it allow.
    scale = expected["l1"] / max(1, tensor.numel())
    assert row.mean == pytest.approx(expected["mean"], rel=tolerance, abs=tolerance * scale, nan_ok=True)
    for name in ("std", "rms", "l1", "l2"):
        assert getattr(row, name) == pytest.approx(expected[name], rel=tolerance, abs=1e-300, nan_ok=True), (
            name
        )


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


def as_bits(stats: pyparam.Stats) -> list[Tensor]:
    return [stats._values.view(torch.int64), stats._counts, *(stats._bins or ())]


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
stats = pyparam.measure(tensors, histogram=True)
plain = pyparam.measure(tensors)  # 16-bit values go another way without bins to count
norms = [pyparam.total_norm([t], p) for t in tensors for p in (0, 1, 2, 3.5, float("inf"), float("-inf"))]
torch.save([stats._values, stats._counts, plain._values, plain._counts, *stats._bins, torch.stack([n.double() for n in norms])], sys.argv[1])
"""


def test_the_same_bits_for_any_vector_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for isa in ("baseline", "avx2", "best"):
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


def test_gradients() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    net[0](torch.randn(5, 4)).square().sum().backward()
    stats = pyparam.measure(net, grad=True)
    assert stats.names == ["0.weight", "0.bias"]
    assert stats.missing == ["1.weight", "1.bias"]
    assert net[0].weight.grad is not None
    assert_row(stats["0.weight"], net[0].weight.grad)
    assert pyparam.measure(net).missing == []
    assert pyparam.measure([torch.randn(3)], grad=True).missing == ["0"]


def test_a_gradient_that_is_not_a_leafs_own_is_not_asked_for() -> None:
    leaf = torch.randn(3, requires_grad=True)
    product = leaf * 2
    assert pyparam.measure([leaf, product], grad=True).missing == ["0", "1"]


@pytest.mark.parametrize(
    ("tensor", "error", "words"),
    [
        (lambda: torch.eye(3).to_sparse(), TypeError, r"parameter 'b' is sparse \(layout torch.sparse_coo\)"),
        (
            lambda: torch.eye(3).to_sparse_csr(),
            TypeError,
            r"parameter 'b' is sparse \(layout torch.sparse_csr\)",
        ),
        (
            lambda: torch.empty(3, device="meta"),
            ValueError,
            "parameter 'b' is on the meta device and has no values",
        ),
        (
            lambda: torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8),
            TypeError,
            "parameter 'b' is quantized",
        ),
    ],
    ids=["sparse", "csr", "meta", "quantized"],
)
@pytest.mark.parametrize("verb", [pyparam.measure, pyparam.total_norm])
@pytest.mark.filterwarnings("ignore")
def test_refusals(
    verb: Callable[[Any], object], tensor: Callable[[], Tensor], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        verb({"a": torch.ones(2), "b": tensor()})


@pytest.mark.filterwarnings("ignore")
def test_nested_tensors_are_refused() -> None:
    for layout in (torch.strided, torch.jagged):
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)
        with pytest.raises(TypeError, match=r"parameter '1' is (nested|a NestedTensor)"):
            pyparam.measure([torch.ones(1), nested])


def test_types_of_several_numbers_are_refused() -> None:
    packed = torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    with pytest.raises(TypeError, match="parameter '0' has dtype .*not single numbers"):
        pyparam.measure([packed])


class Plain(Tensor):
    """A subclass without a dispatch of its own."""


def test_plain_subclasses_are_ordinary() -> None:
    x = torch.randn(100).as_subclass(Plain)
    assert_row(pyparam.measure([x])[0], x.as_subclass(Tensor))


def test_subclasses_with_values_elsewhere_are_refused() -> None:
    from torch.testing._internal.two_tensor import TwoTensor

    with pytest.raises(TypeError, match=r"parameter '0' is a TwoTensor, whose values are not in one plain"):
        pyparam.measure([TwoTensor(torch.ones(3), torch.ones(3))])


def test_freed_storage_is_refused() -> None:
    x = torch.ones(10)
    x.untyped_storage().resize_(0)
    with pytest.raises(TypeError, match="parameter '0' has no memory of its own"):
        pyparam.measure([x])


def test_nothing_is_kept_alive() -> None:
    import gc
    import weakref

    x = torch.ones(10)
    gone = weakref.ref(x)
    stats = pyparam.measure({"x": x}, histogram=True)
    bad = torch.empty(3, device="meta")
    bad_gone = weakref.ref(bad)
    with pytest.raises(ValueError, match="meta"):
        pyparam.measure({"x": bad})
    del x, bad
    gc.collect()
    assert gone() is None
    assert bad_gone() is None
    assert stats["x"].shape == (10,)


@pytest.mark.parametrize("quantiles", [(1.5,), (-0.1, 0.5), (math.nan,)])
def test_quantiles_outside_of_the_unit_interval(quantiles: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"measure: quantiles must lie in \[0, 1\], got"):
        pyparam.measure([torch.ones(3)], quantiles=quantiles)


def test_the_gil_is_released() -> None:
    """A Python thread makes progress while a kernel runs."""
    x = torch.randn(20_000_000)
    stamps: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(0.001):
            stamps.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        begin = time.perf_counter()
        pyparam.total_norm([x], 3.5)
        end = time.perf_counter()
    finally:
        stop.set()
        thread.join()
    inside = [stamp for stamp in stamps if begin + 0.1 * (end - begin) < stamp < end - 0.1 * (end - begin)]
    assert len(inside) > 3


def test_inside_a_parallel_region_of_torchs_threads() -> None:
    """From a thread of another pool, and from several at once, results are the same."""
    tensors = [torch.randn(100_000), torch.randn(50)]
    expected = as_bits(pyparam.measure(tensors, histogram=True))
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(5):
            found = as_bits(pyparam.measure(tensors, histogram=True))
            if not all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.slow
def test_a_hundred_million_elements() -> None:
    x = torch.rand(100_000_001) + 0.5
    row = pyparam.measure([x])[0]
    mean = sum(part.double().sum().item() for part in x.split(10_000_000)) / x.numel()
    spread = sum((part.double() - mean).square().sum().item() for part in x.split(10_000_000))
    assert row.mean == pytest.approx(mean, rel=1e-13)
    assert row.std == pytest.approx(math.sqrt(spread / (x.numel() - 1)), rel=1e-12)


@pytest.mark.slow
def test_more_than_two_to_the_31_elements() -> None:
    x = torch.zeros(2**31 + 5, dtype=torch.uint8)
    x[-1] = 7
    row = pyparam.measure([x])[0]
    assert (row.zeros, row.max, row.l1, row.numel) == (2**31 + 4, 7.0, 7.0, 2**31 + 5)


# The op

OPCHECK = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def sample() -> list[Tensor]:
    # Nothing that gives a NaN, which opcheck takes for a difference.
    return [torch.randn(5), torch.randn(3, 4).t(), torch.arange(4), torch.ones(2, 2).bfloat16()]


def test_opcheck() -> None:
    torch.library.opcheck(torch.ops.pyparam.measure.default, (sample(),), test_utils=OPCHECK)
    with_grad = [torch.randn(3, requires_grad=True)]
    torch.library.opcheck(torch.ops.pyparam.measure.default, (with_grad,), test_utils=OPCHECK)


def test_the_op_has_no_gradient_and_needs_none() -> None:
    values, counts = torch.ops.pyparam.measure([torch.randn(3, requires_grad=True)])
    assert not values.requires_grad
    assert values.shape == (2, 11)
    assert counts.shape == (2, 8)


def test_the_op_refuses_by_place() -> None:
    sparse = torch.eye(3).to_sparse()
    with pytest.raises(TypeError, match=r"measure: tensors\[1\] is sparse"):
        torch.ops.pyparam.measure([torch.ones(2), sparse])


def test_meta_gives_shapes() -> None:
    values, counts = torch.ops.pyparam.measure([torch.empty(3, device="meta")] * 4)
    assert values.shape == (5, 11)
    assert values.is_meta
    assert counts.dtype is torch.int64


def test_compiles_in_one_graph() -> None:
    @torch.compile(fullgraph=True, backend="aot_eager")
    def f(tensors: list[Tensor]) -> Tensor:
        values, _ = torch.ops.pyparam.measure([t * 2 for t in tensors])
        return values[:, 2]

    x = [torch.ones(4), torch.zeros(2)]
    assert torch.equal(f(x)[:2], torch.tensor([2.0, 0.0], dtype=torch.float64))


def means(tensors: list[Tensor]) -> Tensor:
    values, _counts = torch.ops.pyparam.measure(tensors)
    return values[:, 2]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripts() -> None:
    assert torch.jit.script(means)([torch.ones(4)])[0] == 1.0


def test_the_histogram_op() -> None:
    histogram_op = torch.ops.pyparam.measure_histogram.default
    torch.library.opcheck(histogram_op, (sample(),), test_utils=OPCHECK)
    outputs = torch.ops.pyparam.measure_histogram([torch.ones(4), torch.empty(0)])
    assert [tuple(t.shape) for t in outputs] == [(3, 11), (3, 8), (3, 21), (4,), (2,), (2,)]
    assert outputs[3].tolist() == [0, 1, 1, 2]


def test_native_bindings_take_a_table() -> None:
    table = _C.ParamTable(["x"], [torch.ones(3)])
    assert _C.measure(table, False, False, [], True).counts[0, 0] == 3
