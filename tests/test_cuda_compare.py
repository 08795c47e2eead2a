"""compare and fingerprint on a CUDA device: the CPU's bits and counts exactly, its sums to rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cuda_helpers import bits, captured, churn, launches, no_waiting, on_device
from test_bodies_measuring import changed, same_numbers
from torch import Tensor, nn
from zoo_measuring import ALL, any_bits, ordinary, strange

import pyparam
from pyparam._base.pending import Pending

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
]

ops = torch.ops.pyparam


def check(a: list[Tensor], b: list[Tensor], *, there: tuple[bool, bool] = (True, True)) -> None:
    values, counts = ops.compare(a, b)
    sides = [on_device(side) if moved else side for side, moved in zip((a, b), there, strict=True)]
    got_values, got_counts = (t.cpu() for t in ops.compare(*sides))
    assert torch.equal(got_counts, counts)
    assert same_numbers(got_values[:, 0], values[:, 0])
    torch.testing.assert_close(got_values[:, :4], values[:, :4], rtol=1e-11, atol=0, equal_nan=True)
    torch.testing.assert_close(got_values[:, 4], values[:, 4], rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_compare_takes_every_dtype_and_layout(dtype: torch.dtype) -> None:
    for make in (any_bits, ordinary):
        values = [*strange(make(700, dtype)), make(200_001, dtype)]
        other = [*strange(changed(make(700, dtype), 1)), changed(make(200_001, dtype), 2)]
        check(values, other)
        check(values, values)
        check(values, other, there=(True, False))
        check(values, other, there=(False, True))


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_compare_of_two_dtypes(dtype: torch.dtype) -> None:
    for other in (torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.complex64):
        check(strange(any_bits(700, dtype)), strange(any_bits(700, other, 1)))


def test_compare_beyond_the_range_of_squares() -> None:
    x = ordinary(100_000, torch.float64)
    check([x * 1e200, x * 1e-200, x.sign() * 1.7e308], [x * 1e200 + 1, x * 2e-200, -x.sign() * 1.7e308])


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_fingerprint_is_the_cpus(dtype: torch.dtype) -> None:
    tensors = [*strange(any_bits(700, dtype)), any_bits(200_001, dtype), any_bits(70_000, dtype)[3:]]
    assert torch.equal(ops.fingerprint(on_device(tensors)).cpu(), ops.fingerprint(tensors))


def test_fingerprint_of_bytes_at_any_address() -> None:
    raw = any_bits(100_000, torch.uint8)
    there = raw.cuda()
    cuts = [(skip, n) for skip in range(17) for n in (0, 1, 7, 8, 9, 16, 17, 70_001)]
    got = ops.fingerprint([there[skip : skip + n] for skip, n in cuts])
    assert torch.equal(got.cpu(), ops.fingerprint([raw[skip : skip + n] for skip, n in cuts]))


def model_of() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(33, 33), nn.BatchNorm1d(33), nn.Linear(33, 7))


def test_faces_wait_for_nothing_until_read(tmp_path: Path) -> None:
    model, other = model_of(), model_of()
    with torch.no_grad():
        other[2].bias[3] += 1
    fingerprint, comparison = pyparam.fingerprint(model), pyparam.compare(model, other)
    model.cuda()
    there = model_of().cuda()
    there.load_state_dict(other.state_dict())
    pyparam.compare(model, there)
    pyparam.fingerprint(model)
    with no_waiting():
        got, compared = pyparam.fingerprint(model), pyparam.compare(model, there)
    assert isinstance(got._found, Pending)
    assert got == fingerprint
    assert got.diff(fingerprint) == []
    assert compared.changed() == comparison.changed() == ["2.bias"]
    row, expected = compared["2.bias"], comparison["2.bias"]
    assert (row.max_abs, row.differing, row.first_index) == (expected.max_abs, 1, (3,))
    assert row.l2 == pytest.approx(expected.l2, rel=1e-12)
    # And against what lies on disk.
    path = tmp_path / "weights.safetensors"
    from safetensors.torch import save_file

    save_file(other.state_dict(), path)
    assert pyparam.compare(model, path).changed() == ["2.bias"]
    assert pyparam.fingerprint(path) == pyparam.fingerprint(there)


def test_a_model_on_the_cpu_and_on_a_device() -> None:
    model = model_of()
    expected = pyparam.fingerprint(model)
    model[0].cuda()
    assert pyparam.fingerprint(model) == expected
    assert pyparam.compare(model, model_of()).equal
    assert pyparam.compare(model_of(), model).equal


@pytest.mark.cuda(devices=2)
def test_a_model_on_two_devices() -> None:
    model = model_of()
    expected = pyparam.fingerprint(model)
    model[0].to("cuda:1")
    model[2].to("cuda:0")
    assert pyparam.fingerprint(model) == expected
    assert pyparam.compare(model, model_of().cuda()).equal
    assert torch.cuda.current_device() == 0


def test_many_tensors_take_as_many_launches_as_few() -> None:
    many = [torch.full((k % 70,), float(k), device="cuda") for k in range(20_000)]
    host = [t.cpu() for t in many]
    assert torch.equal(ops.fingerprint(many).cpu(), ops.fingerprint(host))
    check(host, host)
    assert launches(lambda: ops.fingerprint(many)) == launches(lambda: ops.fingerprint(many[:50])) == 2
    assert (
        launches(lambda: ops.compare(many, many)) == launches(lambda: ops.compare(many[:50], many[:50])) == 2
    )


def test_run_to_run_the_same_bits() -> None:
    a = on_device([ordinary(3_000_001, torch.float32), *strange(ordinary(700, torch.bfloat16))])
    b = on_device([ordinary(3_000_001, torch.float32, 1), *strange(ordinary(700, torch.bfloat16, 1))])
    first = [bits(t) for t in ops.compare(a, b)]
    for _ in range(20):
        assert all(torch.equal(bits(x), y) for x, y in zip(ops.compare(a, b), first, strict=True))


def test_a_captured_graph_hashes_the_tensors_of_each_replay() -> None:
    tensors = [torch.zeros(1000, device="cuda") for _ in range(50)]
    graph, digests = captured(lambda: ops.fingerprint(tensors))
    for value in (1.0, 2.0):
        churn()
        for tensor in tensors:
            tensor.fill_(value)
        graph.replay()
        assert torch.equal(digests.cpu(), ops.fingerprint([t.cpu() for t in tensors]))


def test_opcheck() -> None:
    tensors = [torch.randn(3, 4, device="cuda").t(), torch.randn(5, device="cuda")]
    torch.library.opcheck(ops.fingerprint.default, (tensors,))
    torch.library.opcheck(ops.compare.default, (tensors, tensors))


@pytest.mark.slow
def test_beyond_two_to_the_31() -> None:
    large = torch.zeros((1 << 31) + 5, dtype=torch.uint8, device="cuda")
    large[-1] = 7
    other = large.clone()
    other[-1] = 6
    values, counts = ops.compare([large], [other])
    assert counts[0].tolist() == [(1 << 31) + 5, 1, 0, (1 << 31) + 4]
    assert values[0, 0].item() == 1
    assert torch.equal(ops.fingerprint([large]).cpu(), ops.fingerprint([large.cpu()]))


@pytest.mark.parametrize(
    "verb", ["compare", "fingerprint", "measure", "total_norm", "clip_grad_norm_", "fill_"]
)
def test_a_list_on_two_kinds_of_devices_cannot_be_captured(verb: str) -> None:
    plain, there = torch.ones(3), torch.ones(3, device="cuda")
    for tensor in (plain, there):
        tensor.grad = torch.ones_like(tensor)
    run = {
        "compare": lambda: ops.compare([plain, there], [there, plain]),
        "fingerprint": lambda: ops.fingerprint([plain, there]),
        "measure": lambda: ops.measure([plain, there]),
        "total_norm": lambda: pyparam.total_norm([plain, there]),
        "clip_grad_norm_": lambda: pyparam.clip_grad_norm_([plain, there], 1.0),
        "fill_": lambda: ops.fill_([plain, there], [2, 2], [0.0, 1.0, 0.0, 0.0] * 2, 0, [0, 1], [], []),
    }[verb]
    run()
    torch.cuda.synchronize()
    with pytest.raises(
        ValueError, match=f"{verb}: a list of tensors on the CPU and on CUDA devices cannot be"
    ):
        captured(run)
