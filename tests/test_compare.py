"""compare: every figure against exact arithmetic, matching by name, layouts, types, and the class."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import reference_compare as reference
import torch
from dtypes import COMPLEX, FLOAT8, FLOATS, INTEGERS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

DTYPES = [*FLOATS, *FLOAT8, *INTEGERS, *COMPLEX, torch.bool]


pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning")


def random_bits(n: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Any pattern of bits that the type can hold: infinities, NaNs and subnormals with the rest."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.randint(0, 2, (n,), generator=generator).bool()
    size = torch.empty(0, dtype=dtype).element_size()
    return torch.randint(0, 256, (n * size,), generator=generator, dtype=torch.uint8).view(dtype)


def mixed(a: Tensor, b: Tensor, share: float, seed: int) -> Tensor:
    """``a`` with a share of its elements taken from ``b``."""
    take = torch.rand(a.shape, generator=torch.Generator().manual_seed(seed)) < share
    return gathered(a, b, take)


def gathered(a: Tensor, b: Tensor, take: Tensor) -> Tensor:
    size = a.element_size()
    out = a.clone().view(torch.uint8).view(-1, size)
    out[take] = b.view(torch.uint8).view(-1, size)[take]
    return out.view(-1).view(a.dtype)


def figures(a: Tensor, b: Tensor) -> dict[str, float | int]:
    values, counts = torch.ops.pyparam.compare([a], [b])
    names = ("max_abs", "mean_abs", "l2", "rel_l2", "cosine")
    found = dict(zip(names, values[0].tolist(), strict=True))
    return found | dict(zip(("numel", "differing", "nonfinite", "first"), counts[0].tolist(), strict=True))


def check(a: Tensor, b: Tensor, rel: float = 1e-12) -> None:
    got, want = figures(a, b), reference.compare(a, b)
    for column in ("numel", "differing", "nonfinite", "first"):
        assert got[column] == want[column], column
    for column in ("max_abs", "mean_abs", "l2", "rel_l2"):
        assert got[column] == pytest.approx(want[column], rel=rel, abs=0), column
    assert got["cosine"] == pytest.approx(want["cosine"], rel=0, abs=rel)


# --- figures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("n", [0, 1, 7, 300])
def test_any_bits(dtype: torch.dtype, share: float, n: int) -> None:
    a, other = random_bits(n, dtype, 1), random_bits(n, dtype, 2)
    check(a, mixed(a, other, share, 3))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_ordinary_values_over_several_blocks(dtype: torch.dtype) -> None:
    a = torch.randn(10_000, generator=torch.Generator().manual_seed(1)).to(dtype)
    b = a.clone()
    b[5000:5010] += 0.5
    check(a, b)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.float32, torch.bfloat16),
        (torch.float16, torch.bfloat16),
        (torch.float64, torch.float32),
        (torch.float32, torch.float8_e4m3fn),
        (torch.float64, torch.int64),
        (torch.int8, torch.float16),
        (torch.int64, torch.int32),
        (torch.bool, torch.uint8),
        (torch.complex64, torch.float32),
        (torch.float64, torch.complex64),
        (torch.complex64, torch.complex128),
        (torch.complex64, torch.int32),
    ],
    ids=str,
)
def test_two_dtypes_are_compared_by_value(x: torch.dtype, y: torch.dtype) -> None:
    base = torch.randint(-3, 4, (500,), generator=torch.Generator().manual_seed(1)).double()
    if x == torch.bool:
        base = base.sign().abs()
    a, b = base.to(x), base.to(y)
    check(a, b)
    assert figures(a, b)["differing"] == 0
    b = (base + (torch.arange(500) % 90 == 89)).to(y)
    check(a, b)
    check(b, a)
    assert figures(a, b)["first"] == 89


def test_two_dtypes_with_special_values() -> None:
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0])
    got = figures(special, special.neg().double())
    check(special, special.neg().double())
    assert got["differing"] == 3
    assert got["first"] == 2
    assert got["nonfinite"] == 2
    check(random_bits(400, torch.float16, 1), random_bits(400, torch.bfloat16, 2))
    check(random_bits(400, torch.float64, 1), random_bits(400, torch.float32, 2))


def test_special_values_of_one_dtype() -> None:
    quiet, other = torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)
    cases = [(quiet, quiet, 0, 0), (quiet, other, 1, 1), (quiet, torch.tensor(1.0), 1, 1)]
    infinity = torch.tensor(math.inf)
    cases += [
        (infinity, infinity, 0, 0),
        (infinity, -infinity, 1, 1),
        (torch.tensor(0.0), torch.tensor(-0.0), 1, 0),
    ]
    for x, y, differing, nonfinite in cases:
        got = figures(torch.stack([torch.tensor(3.0), x]), torch.stack([torch.tensor(3.0), y]))
        assert (got["differing"], got["nonfinite"]) == (differing, nonfinite)
        assert got["max_abs"] == got["rel_l2"] == 0
        assert got["cosine"] == 1


def test_zeros() -> None:
    zero, one = torch.zeros(5), torch.ones(5)
    assert figures(zero, zero)["cosine"] == 1
    assert figures(zero, zero)["rel_l2"] == 0
    assert figures(zero, one)["rel_l2"] == math.inf
    assert figures(one, zero)["rel_l2"] == 1
    assert figures(zero, one)["cosine"] == figures(one, zero)["cosine"] == 0
    assert figures(one, -one)["cosine"] == -1


@pytest.mark.parametrize("exponent", [-320, -300, -200, -150, 150, 200, 300, 308])
def test_float64_beyond_the_range_of_squares(exponent: int) -> None:
    scale = float(f"1e{exponent}")
    a = (
        torch.randn(100, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).clamp(-1.7, 1.7)
        * scale
    )
    b = a.clone()
    b[3] *= 1.25 if exponent < 300 else 0.5
    check(a, b, rel=1e-9)
    check(a, -a, rel=1e-9)
    check(
        torch.cat([a, torch.ones(100, dtype=torch.float64)]),
        torch.cat([b, torch.zeros(100, dtype=torch.float64)]),
    )


def test_float64_of_all_ranges_in_different_blocks() -> None:
    a = torch.ones(5 * 4096, dtype=torch.float64)
    for block, scale in enumerate([1e300, 1e-300, 1.0, 1e160, 0.0]):
        a[block * 4096 : (block + 1) * 4096] = scale
    b = a.clone()
    b[4096:8192] *= 2
    got = figures(a, b)
    assert got["l2"] == pytest.approx(64e-300, rel=1e-12)
    assert got["mean_abs"] == pytest.approx(1e-300 / 5, rel=1e-12)
    b[100] = -1.7e308
    b[101] = 1.7e308
    a[100] = 1.7e308
    got = figures(a, b)
    assert got["max_abs"] == math.inf
    assert got["mean_abs"] == pytest.approx(1.7e308 / 20480 * 3, rel=1e-6)
    assert math.isfinite(got["rel_l2"])


def test_large_integers_are_exact() -> None:
    a = torch.tensor([2**53, 2**62, -(2**63), 5])
    b = torch.tensor([2**53 + 1, 2**62 + 1, 2**63 - 1, 5])
    got = figures(a, b)
    assert got["max_abs"] == float(2**64 - 1)
    assert got["differing"] == 3
    assert figures(a[:2], b[:2])["max_abs"] == 1
    check(a.view(torch.uint64), b.view(torch.uint64))


def test_cancellation() -> None:
    """A small difference of large values."""
    a = torch.full((1000,), 1e4)
    b = a.clone()
    b[::2] = torch.nextafter(a[::2], torch.tensor(math.inf))
    check(a, b, rel=1e-12)


# --- what must not count -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.int64], ids=str
)
def test_layouts(dtype: torch.dtype) -> None:
    a = random_bits(6 * 50 * 7 * 5, dtype, 1).reshape(6, 50, 7, 5)
    b = mixed(a.flatten(), random_bits(a.numel(), dtype, 2), 0.05, 3).reshape(a.shape)
    want = figures(a, b)
    layouts: list[Callable[[Tensor], Tensor]] = [
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t.transpose(0, 2).contiguous().transpose(0, 2),
        lambda t: torch.stack([t, t], -1)[..., 0],
    ]
    for layout in layouts:
        assert figures(layout(a), b) == want
        assert figures(a, layout(b)) == want
        assert figures(layout(a), layout(b)) == want


def test_expanded_and_conjugate() -> None:
    row = torch.randn(1, 30)
    assert figures(row.expand(20, 30), row.repeat(20, 1))["differing"] == 0
    z = torch.randn(40, dtype=torch.complex64)
    assert figures(z.conj(), z.conj().resolve_conj())["differing"] == 0
    assert figures(z, z.conj()) == figures(z, z.conj().resolve_conj())
    assert figures(z.conj().imag, -z.imag)["differing"] == 0


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 400_000),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.integers(2, 6),
)
def test_threads_do_not_count(n: int, dtype: torch.dtype, threads: int) -> None:
    a = random_bits(n, dtype, n)
    b = mixed(a, random_bits(n, dtype, n + 1), 0.5, 3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = torch.ops.pyparam.compare([a, b], [b, a])
        torch.set_num_threads(threads)
        together = torch.ops.pyparam.compare([a, b], [b, a])
    finally:
        torch.set_num_threads(before)
    assert all(
        torch.equal(x.view(torch.int64), y.view(torch.int64)) for x, y in zip(alone, together, strict=True)
    )


PROBE = """
import torch
out = []
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.float8_e5m2):
    torch.manual_seed(0)
    a = (torch.randn(70_001) * 9).to(dtype)
    b = (a.to(torch.float32) + 0.5 * (torch.rand(70_001) < 0.3)).to(dtype)
    values, counts = torch.ops.pyparam.compare([a, a, a], [b, a, b.double()])
    out += values.view(torch.int64).flatten().tolist() + counts.flatten().tolist()
"""


@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_instruction_set_does_not_count(isa: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", f"import pyparam\n{PROBE}\nprint(out)"],
        env={**os.environ, "PYPARAM_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    here: dict[str, list[int]] = {}
    exec(PROBE, here)
    assert json.loads(ran.stdout) == here["out"]


def test_flush_to_zero_does_not_count() -> None:
    tiny = torch.full((100,), 1e-310, dtype=torch.float64)
    want = figures(tiny, 2 * tiny)
    assert want["rel_l2"] == pytest.approx(1.0)
    if torch.set_flush_denormal(True):
        try:
            assert figures(tiny, torch.full((100,), 2e-310, dtype=torch.float64)) == want
        finally:
            torch.set_flush_denormal(False)
