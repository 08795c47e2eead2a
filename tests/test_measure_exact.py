"""Sums without rounding: a row is the nearest float64 of what its values add up to, however they are cut."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
import torch
from torch import Tensor

import pyparam
from pyparam._base.native import _C
from pyparam._sources import table_of

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def kinds(n: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Values of one magnitude, of many, with zeros, far from zero for their spread, and with one outlier."""
    g = torch.Generator().manual_seed(n)
    x = torch.randn(n, generator=g, dtype=torch.float64)
    reach = 6 if dtype == torch.float16 else 30
    outlier = x * 1e-3
    outlier[n // 2] = 3e4
    wide = x * torch.exp2(torch.rand(n, generator=g, dtype=torch.float64) * 2 * reach - reach)
    # At the edges of windows of nineteen powers of two each, of which three are summed at once.
    edges = torch.tensor([0, 18, 19, 37, 38, 56, 57, 75])[torch.arange(n) % 8]
    return {
        "normal": x.to(dtype),
        "wide": wide.to(dtype),
        "wide with zeros": wide.relu().to(dtype),
        "edges": torch.ldexp((2 - torch.finfo(dtype).eps) * x.sign(), reach // 2 - edges).to(dtype),
        "zeros": x.relu().to(dtype),
        "all zeros": (x * 0).to(dtype),
        "shifted": (1000 + x).to(dtype),
        "outlier": outlier.to(dtype),
        "subnormal": (x * torch.finfo(dtype).smallest_normal).to(dtype),
    }


def root(value: Fraction) -> float:
    with localcontext() as context:
        context.prec = 60
        return float((Decimal(value.numerator) / Decimal(value.denominator)).sqrt())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [1, 2, 7, 15, 16, 17, 33, 64, 65, 1023, 1025, 4100])
def test_a_row_is_the_nearest_float64(n: int, dtype: torch.dtype) -> None:
    for kind, x in kinds(n, dtype).items():
        if dtype == torch.float64 and kind == "subnormal":
            continue  # what is itself below the normal float64 is rounded twice
        row = pyparam.measure([x])[0]
        numbers = [Fraction(v) for v in x.tolist()]
        total, squares = sum(numbers, Fraction(0)), sum((v * v for v in numbers), Fraction(0))
        expected = {
            "mean": float(total / n),
            "l1": float(sum(map(abs, numbers), Fraction(0))),
            "l2": root(squares),
            "rms": root(squares / n),
            "std": root((squares - total * total / n) / (n - 1)) if n > 1 else math.nan,
        }
        for name, value in expected.items():
            got = getattr(row, name)
            assert got == value or (math.isnan(got) and math.isnan(value)), (kind, name)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [1, 5, 31, 1024, 5000, 65_536, 65_537, 200_001])
def test_the_order_and_the_cut_of_values_do_not_count(n: int, dtype: torch.dtype) -> None:
    for kind, x in kinds(n, dtype).items():
        bits = pyparam.measure([x])._values.view(torch.int64)
        # As ranks do it, by limbs alone.
        values, *_ = _C.measure_parts(table_of([x])._native, False)
        assert torch.equal(values.view(torch.int64), bits), kind
        shuffled = x[torch.randperm(n, generator=torch.Generator().manual_seed(1))]
        assert torch.equal(pyparam.measure([shuffled])._values.view(torch.int64), bits), kind
        # The total of the pieces is that of the whole.
        pieces = pyparam.measure([x[: n // 3], x[n // 3 : n // 2], x[n // 2 :]])
        assert torch.equal(pieces._values[-1].view(torch.int64), bits[-1]), kind


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_that_are_not_finite_are_left_out(dtype: torch.dtype) -> None:
    x = torch.randn(3000, generator=torch.Generator().manual_seed(0)).to(dtype)
    spoiled = torch.cat([x, torch.tensor([math.nan, math.inf, -math.inf], dtype=dtype)])
    spoiled = spoiled[torch.randperm(len(spoiled), generator=torch.Generator().manual_seed(1))]
    values, found = pyparam.measure([x])._values[0], pyparam.measure([spoiled])
    assert torch.equal(found._values[0].view(torch.int64), values.view(torch.int64))
    assert (found[0].nans, found[0].posinfs, found[0].neginfs) == (1, 1, 1)


def test_merging_leaves_rows_of_one_side_as_they_are() -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = {f"p{i}": torch.randn(5, generator=generator) for i in range(300)}
    half = dict(list(tensors.items())[:150]), dict(list(tensors.items())[150:])
    whole, empty = pyparam.measure(tensors), pyparam.measure({"none": torch.empty(0)})
    merged = pyparam.measure(half[0]) + pyparam.measure(half[1])
    for figure in ("mean", "std", "rms", "l1", "l2"):
        assert torch.equal(getattr(merged, figure), getattr(whole, figure)), figure
    assert (empty + whole).total.l2 == whole.total.l2


def test_a_row_does_not_depend_on_what_its_thread_measured_before() -> None:
    """Sums are made for sizes that are guessed from the values before, of whatever tensor and dtype."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(1500, generator=g, dtype=torch.float64)
    tensors = [
        (x[:n] * scale).to(dtype)
        for scale in (1.0, 1e-30, 3e30, 0.0, 2.0**-140, 1e200, 1e-200, 1e-310)
        for dtype in DTYPES
        for n in (30, 1500)
        if dtype == torch.float64 or 1e-45 < scale < 1e38 or scale == 0
    ]
    tensors += [t.flip(0) * torch.exp2(torch.arange(len(t)) % 31).to(t.dtype) for t in tensors]
    order = torch.randperm(len(tensors), generator=g).tolist()
    together = pyparam.measure([tensors[i] for i in order])
    for place, i in enumerate(order):
        # A thread of its own has measured nothing.
        with ThreadPoolExecutor(1) as fresh:
            alone = fresh.submit(pyparam.measure, [tensors[i]]).result()
        assert torch.equal(together._values[place].nan_to_num(7), alone._values[0].nan_to_num(7)), tensors[i]


def banded(n: int, exponent: int) -> dict[str, Tensor]:
    """bfloat16 values up to 2^exponent, of which few or many lie far below the others, at each place of a vector."""
    g = torch.Generator().manual_seed(n)
    powers = torch.randint(-11, 1, (n,), generator=g)
    signs = torch.randint(0, 2, (n,), generator=g) * 2 - 1
    full = torch.ldexp(signs * (1 + torch.rand(n, generator=g)), powers + exponent).bfloat16()
    full[0] = 2.0**exponent

    def with_some(where: Tensor, powers: list[int]) -> Tensor:
        x = full.clone()
        for i, power in enumerate(powers):
            x[where[i :: len(powers)]] = (-1) ** i * 1.5 * 2.0 ** (exponent + power)
        return x

    places = torch.randperm(n - 1, generator=g) + 1
    return {
        "none": full,
        "edges": with_some(places[:8], [-11, -12, -18]),
        "one too far": with_some(places[:1], [-19]),
        "two too far": with_some(places[:2], [-19, -40]),
        "three too far": with_some(places[:3], [-19, -40, -60]),
        "each place": with_some(torch.arange(1, min(n, 1100), 33), [-13]),
        "as many as are few": with_some(places[:128], [-12]),
        "one more": with_some(places[:129], [-14]),
        "zeros": with_some(places[: n // 2], [-13]).relu(),
        "negative": -full.abs(),
        "positive": full.abs(),
        "largest": torch.full((n,), 255 * 2.0 ** (exponent - 7)).bfloat16(),
    }


@pytest.mark.parametrize("exponent", [-126, -115, -112, 0, 120])
@pytest.mark.parametrize("n", [256, 300, 1024, 1025, 4096, 4099, 12_289])
def test_rows_of_bfloat16_are_those_of_its_values_as_float64(n: int, exponent: int) -> None:
    for kind, x in banded(n, exponent).items():
        others = [x, x * 2.0**-9]  # what was guessed of the first does not hold for it
        with ThreadPoolExecutor(1) as fresh:
            found = [fresh.submit(pyparam.measure, [other]).result()[0] for other in others]
        for row, other in zip(found, others, strict=True):
            wide = pyparam.measure([other.double()])[0]
            for name in (
                "min",
                "max",
                "max_abs",
                "mean",
                "std",
                "rms",
                "l1",
                "l2",
                "zeros",
                "nans",
                "posinfs",
            ):
                assert getattr(row, name) == getattr(wide, name), (kind, name)
