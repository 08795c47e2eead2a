"""measure on a CUDA device: the CPU's counts and extremes exactly, its sums to rounding."""

from __future__ import annotations

import pytest
import torch
from cuda_helpers import bits, captured, churn, launches, no_waiting, on_device
from test_bodies_measuring import EXACT_VALUES, L1, L2, M2, MEAN, RMS, STD, same_numbers
from torch import Tensor, nn
from zoo_measuring import ALL, any_bits, ordinary, strange

import pyparam
from pyparam._base.pending import Pending

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
]

ops = torch.ops.pyparam


def check(tensors: list[Tensor], there: list[Tensor] | None = None, tolerance: float = 1e-12) -> None:
    values, counts = ops.measure(tensors)
    got_values, got_counts = ops.measure(on_device(tensors) if there is None else there)
    assert got_values.is_cuda
    assert torch.equal(got_counts.cpu(), counts)
    got = got_values.cpu()
    assert same_numbers(got[:, EXACT_VALUES], values[:, EXACT_VALUES])
    columns = [STD, RMS, L1, L2]
    torch.testing.assert_close(got[:, columns], values[:, columns], rtol=tolerance, atol=0, equal_nan=True)
    torch.testing.assert_close(got[:, M2], values[:, M2], rtol=1e-11, atol=0, equal_nan=True)
    off = (got[:, MEAN] - values[:, MEAN]).abs() <= tolerance * values[:, RMS]
    assert (off | (got[:, MEAN].isnan() & values[:, MEAN].isnan())).all()


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_every_dtype_and_layout(dtype: torch.dtype) -> None:
    for make in (any_bits, ordinary):
        check(strange(make(700, dtype)))
        values = make(300_001, dtype)
        check([values, values[1:], values[: 1 << 16], values[: (1 << 16) + 1], values[3::2]])


def test_values_far_from_zero_and_beyond_the_range_of_squares() -> None:
    near = 1 + ordinary(200_000, torch.float64) * 1e-6
    check([near, near.float(), near * 1e200, near * 1e-200], tolerance=1e-11)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_histograms_are_the_cpus(dtype: torch.dtype) -> None:
    for make in (any_bits, ordinary):
        tensors = [*strange(make(700, dtype)), make(300_001, dtype)]
        for a, b in zip(
            ops.measure_histogram(on_device(tensors))[2:], ops.measure_histogram(tensors)[2:], strict=True
        ):
            assert torch.equal(a.cpu(), b)


def test_a_large_tensor_is_many_segments() -> None:
    large = ordinary(40_000_000, torch.float32)
    tensors = [large, large[:100], large[:0]]
    check(tensors)
    for a, b in zip(
        ops.measure_histogram(on_device(tensors))[2:], ops.measure_histogram(tensors)[2:], strict=True
    ):
        assert torch.equal(a.cpu(), b)


def test_run_to_run_the_same_bits() -> None:
    tensors = on_device([ordinary(3_000_001, torch.float32), *strange(any_bits(700, torch.bfloat16))])
    first = [bits(t) for t in ops.measure_histogram(tensors)]
    for _ in range(20):
        assert all(
            torch.equal(bits(a), b) for a, b in zip(ops.measure_histogram(tensors), first, strict=True)
        )


def test_many_tensors_take_as_many_launches_as_few() -> None:
    def tiny(count: int) -> list[Tensor]:
        return [torch.full((k % 70,), float(k), device="cuda") for k in range(count)]

    few, many = tiny(50), tiny(20_000)
    check([t.cpu() for t in many], many)
    assert launches(lambda: ops.measure(few)) == launches(lambda: ops.measure(many)) == 3
    assert launches(lambda: ops.measure_histogram(few)) == launches(lambda: ops.measure_histogram(many)) == 8


def model_of(*, tied: bool = False) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(33, 33), nn.LayerNorm(33), nn.Linear(33, 33))
    if tied:
        model[2].weight = nn.Parameter(model[0].weight.detach())
    return model


@pytest.mark.parametrize("tied", [False, True])
def test_stats_wait_for_nothing_until_read(tied: bool) -> None:
    model = model_of(tied=tied)
    expected = pyparam.measure(model)
    model.cuda()
    if tied:  # moving a module cuts the tie
        model[2].weight = nn.Parameter(model[0].weight.detach())
    table = pyparam.walk(model)
    pyparam.measure(table)
    with no_waiting():
        stats = pyparam.measure(table)
    assert isinstance(stats._found, Pending)
    assert stats.total.numel == expected.total.numel
    assert not isinstance(stats._found, Pending)
    for row, other in zip(stats, expected, strict=True):
        assert (row.numel, row.min, row.max, row.zeros) == (other.numel, other.min, other.max, other.zeros)
        assert row.std == pytest.approx(other.std, rel=1e-12)
    assert str(stats.device[0]) == "cuda:0"
    assert stats.sort("l2").names == expected.sort("l2").names
    both = stats + expected
    assert both.total.numel == 2 * expected.total.numel


def test_stats_may_be_read_on_another_stream() -> None:
    table = pyparam.walk(nn.Linear(1000, 1000).cuda())
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(1 << 28)
        with torch.no_grad():
            for tensor in table.tensors:
                tensor.fill_(3)
        stats = pyparam.measure(table)
    assert (stats.min == 3).all()


def test_histograms_quantiles_and_underflow_of_a_model() -> None:
    model = model_of()
    expected = pyparam.measure(model, quantiles=[0.1, 0.5])
    stats = pyparam.measure(model.cuda(), quantiles=[0.1, 0.5])
    assert torch.equal(stats.quantiles, expected.quantiles)
    assert torch.equal(stats.underflow(torch.float16).zero, expected.underflow(torch.float16).zero)
    assert torch.equal(stats.histogram("0.weight").counts, expected.histogram("0.weight").counts)


def test_a_model_on_the_cpu_and_on_a_device() -> None:
    model = model_of()
    expected = pyparam.measure(model, histogram=True)
    model[0].cuda()
    stats = pyparam.measure(model, histogram=True)
    assert torch.equal(stats._counts, expected._counts)
    assert torch.equal(stats.min, expected.min)
    torch.testing.assert_close(stats._values[:, :8], expected._values[:, :8], rtol=1e-12, atol=1e-15)
    for a, b in zip(stats._bins or (), expected._bins or (), strict=True):
        assert torch.equal(a, b)
    tensors = [torch.ones(3), torch.full((2,), 5.0, device="cuda"), torch.zeros(4)]
    values, counts = ops.measure(tensors)
    assert values.is_cuda
    assert values[:, 1].tolist() == [1, 5, 0, 5]
    assert counts[:, 0].tolist() == [3, 2, 4, 9]


@pytest.mark.cuda(devices=2)
def test_a_model_on_two_devices() -> None:
    model = model_of()
    expected = pyparam.measure(model, histogram=True)
    model[0].to("cuda:1")
    model[1].to("cuda:0")
    stats = pyparam.measure(model, histogram=True)
    assert torch.equal(stats._counts, expected._counts)
    for a, b in zip(stats._bins or (), expected._bins or (), strict=True):
        assert torch.equal(a, b)
    assert torch.cuda.current_device() == 0


def test_a_captured_graph_measures_the_tensors_of_each_replay() -> None:
    model = nn.Sequential(*(nn.Linear(17, 17) for _ in range(100))).cuda()
    table = pyparam.walk(model)
    graph, stats = captured(lambda: pyparam.measure(table))
    for value in (1.0, 2.0, 3.0):
        churn()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        graph.replay()
        assert stats.total.max == value
        assert (stats.mean == value).all()


def test_refusals() -> None:
    plain = torch.zeros(3, device="cuda")
    with pytest.raises(TypeError, match=r"measure: tensors\[1\] is sparse \(layout torch.sparse_coo\)"):
        ops.measure([plain, plain.to_sparse()])
    freed = torch.zeros(100, device="cuda")
    freed.untyped_storage().resize_(0)
    with pytest.raises((TypeError, ValueError), match=r"measure: tensors\[1\]"):
        ops.measure([plain, freed])


def test_opcheck() -> None:
    tensors = [torch.randn(3, 4, device="cuda").t(), torch.randn(5, device="cuda")]
    torch.library.opcheck(ops.measure.default, (tensors,))


@pytest.mark.slow
def test_beyond_two_to_the_31() -> None:
    large = torch.ones((1 << 31) + 5, dtype=torch.uint8, device="cuda")
    large[-1] = 7
    values, counts, *_, bin_counts = ops.measure_histogram([large, large[:9]])
    assert counts[0, 0].item() == (1 << 31) + 5
    assert values[0, 1].item() == 7
    assert bin_counts.tolist()[:2] == [(1 << 31) + 4, 1]
    assert values[0, L1].item() == (1 << 31) + 4 + 7
