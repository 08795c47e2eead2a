"""fill_ and initialize_ on a CUDA device: the bits that the CPU draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cuda_helpers import bits, captured, churn, fill_pools, launches, no_waiting, on_device
from samplers import FLOATS, SEEDS, WHOLE, drawn
from test_bodies_fill import KINDS, zoo
from torch import Tensor, nn

import pyparam
from pyparam import init

pytestmark = pytest.mark.cuda


def fill(tensors: list[Tensor], kind: str, *, seed: int = 7, moments: bool = False, **columns: Any) -> Tensor:
    number, parameters = KINDS[kind]
    n = len(tensors)
    return torch.ops.pyparam.fill_(
        tensors,
        [number] * n,
        list(parameters) * n,
        seed,
        [1000 + i for i in range(n)],
        columns.get("offsets", []),
        columns.get("strides", []),
        moments,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_layout_gets_the_cpus_bits(dtype: torch.dtype, kind: str) -> None:
    theirs = zoo(dtype)
    ours = on_device(theirs)
    fill(theirs, kind)
    fill(ours, kind)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(bits(a), bits(b))


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_sampler_gives_the_cpus_bits(name: str, dtype: torch.dtype) -> None:
    if name == "orthogonal_":  # a factorisation, which each device does in its own way
        pytest.xfail("orthogonal_ is made of torch.linalg.qr, whose bits depend on the device")
    for seed in SEEDS:
        theirs = drawn(WHOLE[name], 37, 41, dtype=dtype, seed=seed)
        ours = torch.empty(37, 41, dtype=dtype, device="cuda")
        WHOLE[name](ours, seed=seed, stream="layer.weight")
        assert torch.equal(bits(ours), bits(theirs))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("kind", ["uniform", "normal", "far tail"])
def test_large_tensors_and_parts_of_a_whole(dtype: torch.dtype, kind: str) -> None:
    theirs, ours = torch.zeros(300, 1001, dtype=dtype), torch.zeros(300, 1001, dtype=dtype, device="cuda")
    fill([theirs], kind)
    fill([ours], kind)
    assert torch.equal(bits(ours), bits(theirs))
    rows, columns = (
        torch.zeros(7, 1001, dtype=dtype, device="cuda"),
        torch.zeros(300, 11, dtype=dtype, device="cuda"),
    )
    for part, offset in ((rows, 3 * 1001), (columns, 17)):
        fill([part], kind, offsets=[offset], strides=[1001, 1])
    assert torch.equal(rows, ours[3:10])
    assert torch.equal(columns, ours[:, 17:28])


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.bool, torch.complex64], ids=str
)
def test_constants_of_any_dtype(dtype: torch.dtype) -> None:
    theirs = zoo(dtype)
    ours = on_device(theirs)
    for tensors in (theirs, ours):
        n = len(tensors)
        torch.ops.pyparam.fill_(tensors, [0] * n, [3.0, 0.0, 0.0, 0.0] * n, 0, [0] * n, [], [], False)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(bits(a), bits(b))


def test_a_value_that_a_dtype_cannot_hold_is_refused_before_anything_is_written() -> None:
    tensors = [torch.zeros(3, device="cuda"), torch.zeros(3, dtype=torch.uint8, device="cuda")]
    with pytest.raises(ValueError, match=r"fill_: tensors\[1\] has dtype Byte, which cannot hold 1000"):
        torch.ops.pyparam.fill_(tensors, [0, 0], [1000.0, 0.0, 0.0, 0.0] * 2, 0, [0, 0], [], [], False)
    assert not tensors[0].any()


@pytest.mark.parametrize("kind", ["uniform", "normal", "truncated", "far tail"])
def test_moments_stay_on_the_device_and_are_right(kind: str) -> None:
    tensors = on_device(zoo(torch.float32))
    moments = fill(tensors, kind, moments=True)
    assert moments.is_cuda
    for row, tensor in zip(moments.cpu(), tensors, strict=True):
        if tensor.numel() == 0:
            assert row.isnan().all()
            continue
        values = tensor.double()
        assert torch.allclose(
            row, torch.stack([values.mean(), values.std(correction=0)]).cpu(), rtol=1e-9, atol=3e-8
        )
    again = fill(tensors, kind, moments=True)
    assert torch.equal(moments.view(torch.int64), again.view(torch.int64))


def test_a_model_is_initialised_as_on_the_cpu() -> None:
    def made(device: str) -> nn.Module:
        return nn.Sequential(nn.Linear(64, 33), nn.LayerNorm(33), nn.Conv2d(3, 8, 3), nn.Embedding(50, 7)).to(
            device
        )

    ours, theirs = made("cuda"), made("cpu")
    init.initialize_(ours, seed=3)
    init.initialize_(theirs, seed=3)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(bits(a), bits(b))


def test_a_model_partly_on_the_cpu() -> None:
    def made(place: str) -> list[Tensor]:
        return [
            torch.zeros(100, device=place),
            torch.zeros(100),
            torch.zeros(7, 5, device=place).t(),
            torch.zeros(0),
        ]

    ours, theirs = made("cuda"), made("cpu")
    got, told = fill(ours, "normal", moments=True), fill(theirs, "normal", moments=True)
    assert got.is_cuda
    assert torch.allclose(got.cpu(), told, rtol=1e-5, atol=2e-4, equal_nan=True)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(bits(a), bits(b))


def test_overlapping_tensors_keep_the_later_ones_values() -> None:
    theirs = torch.zeros(1000)
    ours = theirs.cuda()
    for base in (ours, theirs):
        fill([base, base[100:300], base[:150]], "normal")
    assert torch.equal(ours.cpu(), theirs)


def test_many_tensors_take_as_many_launches_as_few() -> None:
    few = [torch.zeros(k % 70, device="cuda") for k in range(50)]
    many = [torch.zeros(k % 70, device="cuda") for k in range(20_000)]
    assert launches(lambda: fill(few, "normal")) == launches(lambda: fill(many, "normal")) == 1


def test_nobody_waits_for_the_device() -> None:
    tensors = [torch.zeros(1000, device="cuda"), torch.zeros(3, 5, device="cuda").t()]

    def work() -> Tensor:
        fill(tensors, "uniform")
        return fill(tensors, "normal", moments=True)

    fill_pools(work)
    with no_waiting():
        moments = work()
    assert moments.shape == (2, 2)


@pytest.mark.cuda(devices=2)
def test_several_devices_in_one_call() -> None:
    theirs = [torch.zeros(1000), torch.zeros(30), torch.zeros(5, 6)]
    ours = [theirs[0].to("cuda:1"), theirs[1].to("cuda:0"), theirs[2].to("cuda:1")]
    told = fill(theirs, "normal", moments=True)
    got = fill(ours, "normal", moments=True)
    assert got.device == torch.device("cuda", 1)
    assert torch.allclose(got.cpu(), told, rtol=1e-5, atol=2e-4)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(bits(a), bits(b))


def test_a_captured_graph_fills_again() -> None:
    tensors = [torch.zeros(1000, device="cuda"), torch.zeros(3, 5, device="cuda").t()]
    graph, _ = captured(lambda: fill(tensors, "normal"))
    told = [torch.zeros(1000), torch.zeros(3, 5).t()]
    fill(told, "normal")
    for _ in range(2):
        churn()
        for tensor in tensors:
            tensor.zero_()
        graph.replay()
        for a, b in zip(tensors, told, strict=True):
            assert torch.equal(bits(a), bits(b))


def test_faces_on_a_device() -> None:
    weight = nn.Parameter(torch.empty(30, 20, device="cuda"))
    version = weight._version
    init.kaiming_normal_(weight, seed=1, stream="w")
    assert weight._version == version + 1
    assert pyparam.flatten([weight]).is_cuda


@pytest.mark.slow
def test_beyond_two_to_the_31() -> None:
    large = torch.zeros((1 << 31) + 9, dtype=torch.bfloat16, device="cuda")
    fill([large], "uniform")
    part = torch.zeros(1000, dtype=torch.bfloat16)
    fill([part], "uniform", offsets=[large.numel() - 1000])
    assert torch.equal(large[-1000:].cpu(), part)
