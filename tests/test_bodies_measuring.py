"""The bodies of the CUDA kernels of measure, norms, fingerprint and compare, run on the host over the rows a
device would get, against the CPU's ops."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import host_kernels
import pytest
import torch
from host_kernels import Table, address
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from zoo_measuring import ALL, any_bits, ordinary, strange

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

OPS = torch.ops.pyparam
EXACT_VALUES = [0, 1, 7, 10]  # min, max, max_abs, exponent
MEAN, STD, RMS, L1, L2, M2 = 2, 3, 4, 5, 6, 8
Kinds = [any_bits, ordinary]


def both_ways(run: Callable[[int, bool], list[Tensor]], threads: tuple[int, ...] = (256, 32)) -> list[Tensor]:
    """The result, which must not depend on the order in which a phase's threads run."""
    results = []
    for count in threads:
        forwards, backwards = run(count, False), run(count, True)
        for a, b in zip(forwards, backwards, strict=True):
            assert torch.equal(a.view(torch.uint8), b.view(torch.uint8)), "depends on the order of threads"
        results.append(forwards)
    return results[0] if len(results) == 1 else [torch.stack(x) for x in zip(*results, strict=True)]


def native(name: str, *arguments: Any) -> Any:
    function = getattr(host_kernels.library("measuring"), name)
    function.restype = ctypes.c_int64
    return function(*arguments)


# measure


def measured(tensors: list[Tensor], chunk: int, threads: int, backwards: bool) -> list[Tensor]:
    table = Table(tensors, chunk)
    values = torch.full((len(tensors) + 1, 11), -7.0, dtype=torch.float64)
    counts = torch.full((len(tensors) + 1, 8), -7, dtype=torch.int64)
    native("measure", ctypes.byref(table.view), address(values), address(counts), threads, backwards)
    return [values, counts]


def check_measure(tensors: list[Tensor], chunk: int, tolerance: float = 1e-12) -> None:
    expected_values, expected_counts = OPS.measure(tensors)
    values, counts = both_ways(lambda t, b: measured(tensors, chunk, t, b))
    for threads in range(2):
        assert torch.equal(counts[threads], expected_counts)
        got = values[threads]
        assert same_numbers(got[:, EXACT_VALUES], expected_values[:, EXACT_VALUES])
        for column in (STD, RMS, L1, L2):
            torch.testing.assert_close(
                got[:, column], expected_values[:, column], rtol=tolerance, atol=0, equal_nan=True
            )
        # A mean may cancel: what it is off by is small beside the values.
        scale = expected_values[:, RMS].nan_to_num(posinf=math.inf)
        off = (got[:, MEAN] - expected_values[:, MEAN]).abs() <= tolerance * scale
        assert (off | (got[:, MEAN].isnan() & expected_values[:, MEAN].isnan())).all()
        torch.testing.assert_close(got[:, M2], expected_values[:, M2], rtol=1e-11, atol=0, equal_nan=True)


def same_numbers(a: Tensor, b: Tensor) -> bool:
    """Equal, with NaN equal to NaN and zeros of both signs equal."""
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("make", Kinds)
@pytest.mark.parametrize("chunk", [7, 1 << 16])
def test_measure_takes_every_dtype_and_layout(
    dtype: torch.dtype, make: Callable[..., Tensor], chunk: int
) -> None:
    check_measure(strange(make(700, dtype)), chunk)


@pytest.mark.parametrize("length", [1, 2, 3, 63, 64, 65, 255, 1023, 1024, 1025, 4096, 5000])
def test_measure_at_the_edges_of_chunks(length: int) -> None:
    values = ordinary(5001, torch.float32)
    check_measure([values[:length], values[1 : length + 1]], 1024)
    check_measure([values[:length].bfloat16()], 1024)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_far_from_zero_lose_nothing(dtype: torch.dtype) -> None:
    near = (1 + ordinary(20_000, torch.float64) * 1e-6).to(dtype)
    lead = near.clone()
    lead[:4000] = float("nan")  # nothing finite among the first that many threads read
    check_measure([near, lead, near * 1000], 1 << 16, 1e-11)


def test_float64_beyond_the_range_of_squares() -> None:
    x = ordinary(3000, torch.float64)
    cases = [x * 1e200, x * 1e-200, x * 1e300, torch.zeros(50, dtype=torch.float64), x, x * 5e-310]
    mixed = torch.cat((x * 1e-250, x * 1e250, torch.zeros(2000, dtype=torch.float64)))
    check_measure([*cases, mixed, torch.tensor([1.7e308, -1.7e308, 1.0], dtype=torch.float64)], 1000, 1e-11)
    check_measure([torch.complex(x * 1e200, x)], 500, 1e-11)


def test_measure_of_nothing() -> None:
    check_measure([], 64)
    check_measure([torch.empty(0), torch.empty(3, 0)], 64)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_measure_any_list(data: st.DataObject) -> None:
    dtypes = data.draw(st.lists(st.sampled_from(ALL), min_size=1, max_size=6))
    tensors = []
    for dtype in dtypes:
        make = data.draw(st.sampled_from(Kinds))
        values = make(data.draw(st.integers(0, 900)), dtype, data.draw(st.integers(0, 99)))
        tensors.append(values[data.draw(st.integers(0, 17)) :: data.draw(st.integers(1, 3))])
    check_measure(tensors, data.draw(st.integers(1, 400)), 1e-11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_zeros_of_both_signs_are_one_number_and_signalling_nans_are_nans(dtype: torch.dtype) -> None:
    bits = {8: torch.int64, 4: torch.int32, 2: torch.int16}[dtype.itemsize]
    infinity = torch.tensor(math.inf, dtype=dtype).view(bits)
    signalling = torch.stack((infinity + 1, infinity + 1 | torch.iinfo(bits).min)).view(dtype)
    plus, minus = torch.zeros(1, dtype=dtype), -torch.zeros(1, dtype=dtype)
    assert minus.signbit().all()
    assert signalling.isnan().all()
    lists = [plus, minus, torch.cat((plus, minus)), torch.cat((minus, plus)), minus.expand(70).contiguous()]
    lists += [
        torch.cat((signalling, minus, signalling)),
        torch.cat((minus.expand(40), signalling)),
        signalling,
    ]
    expected_values, expected_counts = OPS.measure(lists)
    values, counts = both_ways(lambda t, b: measured(lists, 16, t, b))
    assert torch.equal(counts, expected_counts.expand_as(counts))
    assert expected_counts[:-1, 2].tolist() == [1, 1, 2, 2, 70, 1, 40, 0]  # zeros
    assert expected_counts[:-1, 3].tolist() == [0, 0, 0, 0, 0, 4, 2, 2]  # NaNs
    for column in EXACT_VALUES[:3]:
        for found in (expected_values, *values):
            extremes = found[:-2, column]
            assert extremes.tolist() == [0.0] * 7
            assert not extremes.signbit().any()


# Histograms


def binned(tensors: list[Tensor], shortest: int, chunk: int, threads: int, backwards: bool) -> list[Tensor]:
    table = Table(tensors, chunk)
    values, _ = OPS.measure(tensors)
    rows = len(tensors) + 1
    below = torch.full((rows, 21), -7)
    offsets = torch.full((rows + 1,), -7)

    def run(bins: Any, counts: Any) -> int:
        places = (address(values), address(below), address(offsets), bins, counts)
        count: int = native(
            "bins", ctypes.byref(table.view), ctypes.c_int64(shortest), *places, threads, backwards
        )
        return count

    entries = run(None, None)
    bins = torch.full((entries,), -7, dtype=torch.int32)
    counts = torch.full((entries,), -7)
    assert run(address(bins), address(counts)) == entries
    return [below, offsets, bins, counts]


def check_bins(tensors: list[Tensor], shortest: int, chunk: int = 1 << 16) -> None:
    _, _, *expected = OPS.measure_histogram(tensors)
    for threads in (256, 32):
        got = both_ways(lambda t, b: binned(tensors, shortest, chunk, t, b), (threads,))
        for a, b in zip(got, expected, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("make", Kinds)
def test_bins_of_every_dtype_and_layout(dtype: torch.dtype, make: Callable[..., Tensor]) -> None:
    check_bins(strange(make(700, dtype)), 1 << 16)
    check_bins(strange(make(700, dtype)), 128)  # several segments to a tensor


def test_bins_of_values_over_many_octaves() -> None:
    x = ordinary(4000, torch.float64)
    wide = torch.exp2(torch.linspace(-160, 127, 4000, dtype=torch.float64))
    check_bins([(x * wide).float(), x * torch.exp2(torch.linspace(-400, 400, 4000)).double()], 1 << 16)
    check_bins([(x * wide).float(), (x * wide).bfloat16(), wide.float(), -wide.float()], 1000)


def test_bins_at_every_rounding_limit() -> None:
    edges = torch.tensor([native("limit", i) for i in range(21)])
    bits = torch.cat([edges + step for step in range(-3, 4)]).clamp(0, 0x7F7FFFFF).to(torch.int32)
    values = bits.view(torch.float32)
    check_bins([values, -values, torch.cat((values, -values)).double()], 1 << 16)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_bins_of_any_list(data: st.DataObject) -> None:
    tensors = []
    for dtype in data.draw(st.lists(st.sampled_from(ALL), min_size=0, max_size=4)):
        make = data.draw(st.sampled_from(Kinds))
        values = make(data.draw(st.integers(0, 600)), dtype, data.draw(st.integers(0, 99)))
        tensors.append(values[data.draw(st.integers(0, 17)) :: data.draw(st.integers(1, 3))])
    check_bins(tensors, data.draw(st.sampled_from([64, 200, 1 << 16])))


# Norms

ORDERS = [0.0, 1.0, 2.0, 0.5, 3.0, 7.5, math.inf, -math.inf]


def normed(
    tensors: list[Tensor], p: float, chunk: int, threads: int, backwards: bool, of_norms: bool = False
) -> list[Tensor]:
    table = Table(tensors, chunk)
    wide = any(t.dtype in (torch.float64, torch.complex128) for t in tensors)
    norm = torch.full((), -7.0, dtype=torch.float64 if wide else torch.float32)
    native(
        "norm",
        ctypes.byref(table.view),
        ctypes.c_double(p),
        of_norms,
        wide,
        address(norm),
        threads,
        backwards,
    )
    return [norm.reshape(1)]


def check_norm(tensors: list[Tensor], p: float, chunk: int) -> None:
    expected = OPS.total_norm(tensors, p)
    (got,) = both_ways(lambda t, b: normed(tensors, p, chunk, t, b))
    rtol = 1e-12 if expected.dtype == torch.float64 else 1e-7
    expected = expected.expand(2, 1)
    torch.testing.assert_close(got, expected.contiguous(), rtol=rtol, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("p", ORDERS)
def test_norms_of_every_dtype_and_layout(dtype: torch.dtype, p: float) -> None:
    for make in Kinds:
        values = make(700, dtype)
        check_norm(strange(values), p, 64)
        if make is any_bits and dtype.is_floating_point:
            check_norm(strange(values.double().nan_to_num(posinf=3, neginf=-3).to(dtype)), p, 1 << 16)


@pytest.mark.parametrize("p", ORDERS)
def test_norms_beyond_the_range_of_powers(p: float) -> None:
    x = ordinary(300, torch.float64)
    for tensors in ([x * 1e200], [x * 1e-200], [x * 1e-170, x * 1e170, x], [x * 0], [x, x * 0], []):
        check_norm(tensors, p, 100)
    check_norm([torch.empty(0)], p, 100)
    check_norm([torch.tensor([1.0, math.inf]), torch.ones(3)], p, 100)
    check_norm([torch.complex(x * 1e200, x * 1e190)], p, 100)


def clipped(
    tensors: list[Tensor], max_norm: float, p: float, chunk: int, threads: int, backwards: bool
) -> list[Tensor]:
    """What clipping leaves of copies, each under its own strides."""
    copies = [_copy(t) for t in tensors]
    (norm,) = normed(copies, p, chunk, threads, backwards, True)
    table = Table([_unmarked(t) for t in copies], chunk)
    native(
        "scale",
        ctypes.byref(table.view),
        address(norm),
        norm.dtype == torch.float64,
        ctypes.c_double(max_norm),
        threads,
        backwards,
    )
    return [torch.cat([bits(t) for t in copies]), norm]


def bits(t: Tensor) -> Tensor:
    return t.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)


def _unmarked(t: Tensor) -> Tensor:
    return t.conj() if t.is_conj() else t


def _copy(t: Tensor) -> Tensor:
    """The same values at the same strides and alignment in memory of their own."""
    base = t._base if t._base is not None else t
    room = base.clone()
    return room.as_strided(t.shape, t.stride(), t.storage_offset())


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128]
)
@pytest.mark.parametrize("max_norm", [0.1, 3.0, 1e9])
def test_clipping(dtype: torch.dtype, max_norm: float) -> None:
    for make in Kinds:
        tensors = [t for t in strange(make(700, dtype)) if 0 not in t.stride()]
        tensors.append(torch.zeros(130, dtype=dtype))  # order 0 counts those that are not all zero
        for p in (2.0, math.inf, 0.0):
            norm = OPS.clip_grad_norm_([_copy(t) for t in tensors], max_norm, p)
            got, got_norm = both_ways(partial(clipped, tensors, max_norm, p, 100))
            torch.testing.assert_close(got_norm[0, 0], norm, rtol=1e-7, atol=0, equal_nan=True)
            coefficients = (1 / (got_norm[:, 0] + 1e-6) * max_norm).clamp(max=1)
            for row, by in zip(got, coefficients, strict=True):
                expected = torch.cat([scaled(t, by) for t in tensors]).nan_to_num(7)
                assert torch.equal(row.view(expected.dtype).nan_to_num(7), expected)


def scaled(t: Tensor, by: Tensor) -> Tensor:
    """The parts of complex numbers by themselves, in float32 at the least."""
    parts = torch.view_as_real(t) if t.is_complex() else t
    wide = parts.double() if by.dtype == torch.float64 else parts.float() * 1.0
    return (wide * by).to(parts.dtype).reshape(-1)


# fingerprint


def hashed(tensors: list[Tensor], chunk: int, threads: int, backwards: bool) -> list[Tensor]:
    table = Table(tensors, chunk)
    sizes = torch.tensor([n for t in tensors for n in t.shape], dtype=torch.int64)
    ends = torch.tensor([t.dim() for t in tensors], dtype=torch.int64).cumsum(0)
    digests = torch.full((len(tensors), 2), -7)
    native(
        "fingerprint",
        ctypes.byref(table.view),
        address(sizes),
        address(ends),
        address(digests),
        threads,
        backwards,
    )
    return [digests]


def check_fingerprint(tensors: list[Tensor], chunk: int) -> None:
    expected = OPS.fingerprint(tensors) if tensors else torch.empty(0, 2, dtype=torch.int64)
    for threads in (256, 32):
        (got,) = both_ways(lambda t, b: hashed(tensors, chunk, t, b), (threads,))
        assert torch.equal(got, expected)


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("chunk", [64, 1 << 16])
def test_fingerprint_of_every_dtype_and_layout(dtype: torch.dtype, chunk: int) -> None:
    check_fingerprint(strange(any_bits(700, dtype)), chunk)


@pytest.mark.parametrize("dtype", [torch.bits8, torch.bits16, torch.bits4x2, torch.bits1x8], ids=str)
def test_fingerprint_of_types_without_arithmetic(dtype: torch.dtype) -> None:
    same_size = torch.int16 if dtype == torch.bits16 else torch.int8
    values = any_bits(700, same_size)
    assert (
        OPS.fingerprint([values.view(dtype)])[0].tolist()
        != OPS.fingerprint([values[:350].view(dtype)])[0].tolist()
    )
    check_fingerprint([values.view(dtype), values.view(20, 35).t().view(dtype)], 64)


@pytest.mark.parametrize("skip", range(17))
def test_fingerprint_of_bytes_at_any_address(skip: int) -> None:
    raw = any_bits(5000, torch.uint8)
    check_fingerprint([raw[skip : skip + n] for n in (0, 1, 7, 8, 9, 15, 16, 17, 4099)], 1 << 16)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_fingerprint_of_any_list(data: st.DataObject) -> None:
    tensors = []
    for dtype in data.draw(st.lists(st.sampled_from(ALL), min_size=0, max_size=5)):
        values = any_bits(data.draw(st.integers(0, 900)), dtype, data.draw(st.integers(0, 99)))
        tensors.append(values[data.draw(st.integers(0, 17)) :: data.draw(st.integers(1, 3))])
    check_fingerprint(tensors, 8 * data.draw(st.integers(1, 60)))


# compare


def compared(a: list[Tensor], b: list[Tensor], chunk: int, threads: int, backwards: bool) -> list[Tensor]:
    tables = Table(a, chunk), Table(b, chunk)
    values = torch.full((len(a), 5), -7.0, dtype=torch.float64)
    counts = torch.full((len(a), 4), -7)
    views = [ctypes.byref(table.view) for table in tables]
    native("compare", *views, address(values), address(counts), threads, backwards)
    return [values, counts]


def check_compare(a: list[Tensor], b: list[Tensor], chunk: int, tolerance: float = 1e-11) -> None:
    expected_values, expected_counts = OPS.compare(a, b)
    values, counts = both_ways(lambda t, w: compared(a, b, chunk, t, w))
    for threads in range(2):
        assert torch.equal(counts[threads], expected_counts)
        assert same_numbers(values[threads][:, 0], expected_values[:, 0])
        torch.testing.assert_close(
            values[threads][:, :4], expected_values[:, :4], rtol=tolerance, atol=0, equal_nan=True
        )
        torch.testing.assert_close(
            values[threads][:, 4], expected_values[:, 4], rtol=0, atol=1e-12, equal_nan=True
        )


def changed(values: Tensor, seed: int) -> Tensor:
    """Some elements, by their bytes."""
    generator = torch.Generator().manual_seed(seed)
    raw = values.clone().view(torch.uint8)
    if raw.numel() == 0:
        return values
    places = torch.randint(0, raw.numel(), (raw.numel() // 40 + 1,), generator=generator)
    raw[places] = torch.randint(0, 256, places.shape, dtype=torch.uint8, generator=generator)
    return (raw > 127) if values.dtype == torch.bool else raw.view(values.dtype)


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("chunk", [7, 1 << 16])
@pytest.mark.parametrize("make", Kinds)
def test_compare_takes_every_dtype_and_layout(
    dtype: torch.dtype, chunk: int, make: Callable[..., Tensor]
) -> None:
    values = make(700, dtype)
    other = changed(values, 1)
    check_compare(strange(values), strange(other), chunk)
    check_compare(strange(values), strange(values), chunk)
    contiguous = [t.contiguous() for t in strange(other)]
    check_compare(strange(values), contiguous, chunk)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_compare_of_two_dtypes(dtype: torch.dtype) -> None:
    values = ordinary(700, dtype)
    for other in ALL:
        check_compare(strange(values), strange(ordinary(700, other)), 64)
    for other in (torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.complex64):
        check_compare(strange(any_bits(700, dtype)), strange(any_bits(700, other, 1)), 1 << 16)


def test_compare_beyond_the_range_of_squares() -> None:
    x = ordinary(300, torch.float64)
    pairs = [(1e200, 1e200), (1e-200, 1e-200), (1e300, -1e300), (1.7e308, -1.7e308), (0, 1e-180), (0, 0)]
    a = [(x.sign() if abs(s) > 1e305 else x) * s for s, _ in pairs]
    b = [(x.sign() if abs(s) > 1e305 else x.flip(0)) * s for _, s in pairs]
    check_compare(a, b, 100)
    check_compare(a, [t.float() for t in b], 100)
    check_compare([torch.full((3,), math.inf), torch.tensor([math.nan])], [torch.ones(3), torch.ones(1)], 10)


def test_compare_of_64_bit_integers_is_exact() -> None:
    top = torch.tensor([2**62 + 1, -(2**63), 2**63 - 1, 5])
    check_compare([top], [top - 1], 10)
    unsigned = top.view(torch.uint64)
    check_compare([unsigned], [(top - 1).view(torch.uint64)], 10)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_compare_any_pairs(data: st.DataObject) -> None:
    a, b = [], []
    for dtype in data.draw(st.lists(st.sampled_from(ALL), min_size=1, max_size=4)):
        make = data.draw(st.sampled_from(Kinds))
        values = make(data.draw(st.integers(0, 600)), dtype, data.draw(st.integers(0, 99)))
        other = changed(values, data.draw(st.integers(0, 99))) if data.draw(st.booleans()) else values
        step, skip = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 17))
        a.append(values[skip::step])
        b.append(other[skip::step])
    check_compare(a, b, data.draw(st.integers(1, 400)))
