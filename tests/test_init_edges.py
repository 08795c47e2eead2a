"""Samplers at the edges of their parameters and of each dtype: what is drawn lies where it should, or is
refused by name."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from samplers import FLOATS, drawn
from scipy import stats
from torch import Tensor, nn

from pyparam import init

INF, NAN = math.inf, math.nan
LARGEST = {dtype: torch.finfo(dtype).max for dtype in FLOATS}


def filled(values: list[float], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """A constant a tensor, by one call of the op."""
    tensors = [torch.empty(2, dtype=dtype) for _ in values]
    rows = [number for value in values for number in (value, 0.0, 0.0, 0.0)]
    torch.ops.pyparam.fill_(tensors, [0] * len(values), rows, 0, [0] * len(values), [], [])
    return tensors


def bits(tensor: Tensor) -> Tensor:
    return tensor.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


# constants


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    "values",
    [[1.0, NAN, 2.0, -0.0], [NAN, 1.0, NAN, 5.0], [0.0, -0.0], [-0.0, 0.0, -0.0], [INF, -INF, NAN, 0.0]],
    ids=str,
)
def test_constants_are_told_apart_by_their_bits(values: list[float], dtype: torch.dtype) -> None:
    for got, value in zip(filled(values, dtype), values, strict=True):
        assert torch.equal(bits(got), bits(torch.full((2,), value, dtype=dtype)))


def test_one_nan_among_the_rules_is_one_nan() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    init.initialize_(
        net,
        {
            "0.weight": partial(init.constant_, val=NAN),
            "0.bias": init.zeros_,
            "1.weight": partial(init.constant_, val=-0.0),
            "1.bias": partial(init.constant_, val=5.0),
        },
        seed=0,
    )
    assert net[0].weight.isnan().all()
    assert net[0].bias.eq(0).all()
    assert not net[0].bias.signbit().any()
    assert net[1].weight.eq(0).all()
    assert net[1].weight.signbit().all()
    assert net[1].bias.eq(5).all()


# uniform


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    ("a", "b"),
    [(0.0, 1.0), (-0.1, 0.3), (1.0, 2.0), (-1.0, 0.0), (-3e-8, 1e-7), (0.1, 0.11), (1000.0, 1003.0)],
)
def test_a_uniform_is_in_its_half_open_interval(a: float, b: float, dtype: torch.dtype) -> None:
    values = drawn(init.uniform_, 1 << 20, a=a, b=b, dtype=dtype).double()
    assert values.min() >= a
    assert values.max() < b
    step = torch.finfo(dtype).eps * max(-a, b, torch.finfo(dtype).smallest_normal)
    assert abs(values.mean() - (a + b) / 2) < (b - a) * 0.002 + step


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_last_number_below_one_takes_what_would_round_to_one(dtype: torch.dtype) -> None:
    values = drawn(init.uniform_, 1 << 22, dtype=dtype)
    last = 1 - torch.finfo(dtype).eps / 2
    assert values.max() == last
    assert (values == last).double().mean() == pytest.approx(0.75 * torch.finfo(dtype).eps, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sampler", [init.kaiming_uniform_, init.xavier_uniform_])
def test_bounds_of_a_fan_hold_in_sixteen_bits(sampler: Any, dtype: torch.dtype) -> None:
    values = drawn(sampler, 1000, 777, dtype=dtype).double().abs()
    bound = math.sqrt(6 / (777 if sampler is init.kaiming_uniform_ else 1777))
    assert bound * (1 - 2 * torch.finfo(dtype).eps) < values.max() <= bound


REFUSED_UNIFORM = [
    (-3e38, 3e38, torch.float32),
    (0.0, 1e39, torch.float32),
    (1e39, 2e39, torch.float32),
    (-2e39, -1e39, torch.bfloat16),
    (-3e38, 3e38, torch.bfloat16),
    (-1e5, 1e5, torch.float16),
    (0.0, 7e4, torch.float16),
    (-6e4, 6e4, torch.float16),
    (-1e308, 1e308, torch.float64),
]


@pytest.mark.parametrize(("a", "b", "dtype"), REFUSED_UNIFORM, ids=str)
def test_bounds_beyond_the_dtype_are_refused_as_torch_does(a: float, b: float, dtype: torch.dtype) -> None:
    tensor = torch.full((100,), 7.0, dtype=dtype)
    with pytest.raises(RuntimeError):
        tensor.clone().uniform_(a, b)
    with pytest.raises(ValueError, match=r"^uniform_: .*(largest number is|b - a must be finite)"):
        init.uniform_(tensor, a, b, seed=0, stream="s")
    assert tensor.eq(7).all()


def test_what_initialize_refuses_names_the_parameter_and_changes_nothing() -> None:
    net = nn.Linear(3, 3).half()
    before = [p.clone() for p in net.parameters()]
    with pytest.raises(ValueError, match=r"parameter 'bias': a uniform needs bounds .* torch.float16"):
        init.initialize_(net, {"weight": init.ones_, "bias": partial(init.uniform_, a=-1e5, b=1e5)}, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_an_interval_between_two_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"torch.bfloat16 has no number in \[a, b\); got a=1.001, b=1.002"):
        drawn(init.uniform_, 3, a=1.001, b=1.002, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"torch.bfloat16 has no number in \[a, b\]; got a=1.001, b=1.002"):
        drawn(init.trunc_normal_, 3, a=1.001, b=1.002, dtype=torch.bfloat16)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_widest_uniform_is_drawn_and_finite(dtype: torch.dtype) -> None:
    most = LARGEST[dtype] / 2
    values = drawn(init.uniform_, 10_000, a=-most, b=most, dtype=dtype)
    assert values.isfinite().all()
    assert values.abs().max() <= most
    assert stats.kstest(values.double().numpy() / most, stats.uniform(-1, 2).cdf).pvalue > 1e-4


# normal


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_normal_that_reaches_beyond_the_dtype_is_refused(dtype: torch.dtype) -> None:
    most = LARGEST[dtype]
    for mean, std in [(0.0, most / 4), (most * 0.9, most * 0.1)]:
        with pytest.raises(ValueError, match=rf"a normal with mean=.* reaches beyond {dtype}"):
            drawn(init.normal_, 3, mean=mean, std=std, dtype=dtype)
        with pytest.raises(ValueError, match=rf"reaches beyond {dtype}"):
            drawn(init.trunc_normal_, 3, mean=mean, std=std, a=-INF, b=INF, dtype=dtype)
    values = drawn(init.normal_, 100_000, std=most / 9, dtype=dtype)
    assert values.isfinite().all()
    assert values.double().div(most / 9).std() == pytest.approx(1, rel=0.02)


def test_a_mean_beyond_the_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"normal_: the tensor: a normal with mean=1e\+39"):
        drawn(init.normal_, 3, mean=1e39)
    with pytest.raises(ValueError, match="reaches beyond torch.float16, whose largest number is 65504"):
        drawn(init.normal_, 3, mean=7e4, dtype=torch.float16)


# truncated normal


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"a": -0.1, "b": 0.3},
        {"mean": 0.05, "std": 0.02, "a": 0.0301, "b": 0.0703},
        {"a": 5.1, "b": 5.3},
        {"a": -9.7, "b": -9.3},
        {"mean": 1.0, "std": 1e-3, "a": 0.9999, "b": 1.0101},
        {"a": 0.3, "b": INF},
        {"a": -INF, "b": -0.3},
        {"mean": 1e30, "std": 1.0, "a": -1.0, "b": 1.1},
        {"std": 1e30, "a": -1.1, "b": 1.3},
        {"a": -1e300, "b": 1e300},
        {"mean": 0.31, "std": 0.0, "a": 0.3, "b": 0.3101},
    ],
    ids=str,
)
def test_a_truncated_normal_is_in_its_interval(options: dict[str, float], dtype: torch.dtype) -> None:
    values = drawn(init.trunc_normal_, 1 << 16, dtype=dtype, **options).double()
    assert values.isfinite().all()
    assert values.min() >= options["a"]
    assert values.max() <= options["b"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("mean", "a", "b"),
    [(1.0, 0.0, 1e-10), (2.0, 0.0, 2e-4), (-1.5, 0.0, 1e-4), (0.3, 0.0, 1e-7), (-4.0, 0.0, 1e-5)],
)
def test_a_narrow_interval_is_filled_evenly(mean: float, a: float, b: float, dtype: torch.dtype) -> None:
    values = drawn(init.trunc_normal_, 200_000, mean=mean, a=a, b=b, dtype=dtype).double().numpy()
    assert ((values == a) | (values == b)).mean() < 1e-4
    assert len(set(values.tolist())) > 100_000
    assert abs(values.mean() - (a + b) / 2) < (b - a) * 0.003
    assert stats.kstest((values - a) / (b - a), stats.uniform().cdf).statistic < 0.005


def test_a_narrow_interval_keeps_the_slope_of_its_density() -> None:
    # Four deviations out, the density falls by 4 * 2e-4 from end to end: the mean lies that far below the
    # middle, divided by 12.
    values = drawn(init.trunc_normal_, 1 << 26, mean=-4.0, a=0.0, b=2e-4)
    below = 0.5 - values.double().mean().item() / 2e-4
    assert below == pytest.approx(4 * 2e-4 / 12, abs=5e-5)


# every dtype, every sampler: as a tensor that is drawn, and one that holds constants only


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_constants_that_a_dtype_cannot_hold_are_refused(dtype: torch.dtype) -> None:
    if dtype == torch.float64:
        pytest.skip("every float is one")
    tensors = [torch.full((n,), 7.0, dtype=dtype) for n in (3, 1, 2)]
    for last in (tensors[1:], tensors):
        rows = [
            number for t in last for number in (1.0 if len(t) == 3 else LARGEST[dtype] * 1.1, 0.0, 0.0, 0.0)
        ]
        with pytest.raises(ValueError, match="which cannot hold"):
            torch.ops.pyparam.fill_(last, [0] * len(last), rows, 0, [0] * len(last), [], [])
    assert all(t.eq(7).all() for t in tensors)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_uniform_of_one_value_is_what_a_constant_is(dtype: torch.dtype) -> None:
    got = drawn(init.uniform_, 3, a=0.3, b=0.3, dtype=dtype)
    assert got.eq(torch.full((3,), 0.3, dtype=dtype)).all()


def test_an_inference_tensor_is_refused_before_it_is_filled() -> None:
    with torch.inference_mode():
        held = torch.full((3,), 7.0)
        net = torch.nn.Linear(3, 3)
    plain, before = torch.full((3,), 7.0), net.weight.clone()
    words = "is an inference tensor; outside inference mode it cannot be written"
    with pytest.raises(ValueError, match=rf"fill_: tensors\[1\] {words}"):
        torch.ops.pyparam.fill_([plain, held], [2, 2], [0.0, 1.0, 0.0, 0.0] * 2, 0, [0, 1], [], [])
    for name in [name for name in vars(torch.nn.init) if name.endswith("_") and name[0] != "_"]:
        with torch.inference_mode():
            target = torch.ones(2, 2, 2) if name == "dirac_" else net.weight
        arguments = {"sparse_": (0.5,), "constant_": (3.0,)}.get(name, ())
        with pytest.raises(ValueError, match=f"^{name}: the tensor {words}"):
            getattr(init, name)(target, *arguments)
        assert torch.equal(net.weight, before)
    with pytest.raises(ValueError, match=f"initialize_: parameter 'weight' {words}"):
        init.initialize_(net, seed=0)
    with pytest.raises(ValueError, match="initialize_: a sampler is for an inference tensor; outside"):
        init.initialize_(net, {"weight": lambda t, seed, stream: t.zero_(), "bias": init.ones_}, seed=0)
    assert plain.eq(7).all()
    assert held.eq(7).all()
    assert torch.equal(net.weight, before)
    with torch.inference_mode():
        init.initialize_(net, seed=0)
    assert not torch.equal(net.weight, before)
