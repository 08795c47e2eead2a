"""The CUDA kernels beside a device-to-device copy, torch's fill_, and torch's loops over tensors."""

from __future__ import annotations

import pytest
import torch
from device_pairing import needs_cuda
from device_pairing import versus_on_device as versus
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import pyparam

pytestmark = needs_cuda

ops = torch.ops.pyparam


def large(dtype: torch.dtype = torch.float32, gib: int = 4, lead: int = 0) -> list[Tensor]:
    """Matrices of 64 MiB; with ``lead`` every one but the first lies unaligned in the flat vector."""
    size = torch.empty(0, dtype=dtype).element_size()
    side = 1 << 12
    rows = (64 << 20) // size // side
    matrices = [torch.randn(rows, side, device="cuda").to(dtype) for _ in range(gib * 16)]
    return matrices if lead == 0 else [torch.zeros(lead, dtype=dtype, device="cuda"), *matrices]


def tiny(count: int = 47_398) -> list[Tensor]:
    return [torch.randn(k % 200 + 1, device="cuda") for k in range(count)]


class TestFlatten:
    @pytest.mark.parametrize("lead", [0, 1, 3])
    def test_at_the_speed_of_a_copy(self, lead: int) -> None:
        tensors = large(lead=lead)
        vector = ops.flatten(tensors)
        assert torch.equal(vector, torch.cat([t.view(-1) for t in tensors]))
        out = torch.empty_like(vector)
        moved = 2 * vector.nbytes
        versus(lambda: ops.flatten(tensors, out=out), lambda: out.copy_(vector), floor=0.9, moved=moved)
        versus(lambda: ops.scatter_(tensors, vector), lambda: out.copy_(vector), floor=0.9, moved=moved)

    @pytest.mark.parametrize(
        "dtypes", [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)], ids=str
    )
    def test_converting(self, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
        tensors, to = large(dtypes[0]), dtypes[1]
        vector = ops.flatten(tensors)
        out = ops.flatten(tensors, to)
        assert torch.equal(out, vector.to(to))
        moved = vector.nbytes + out.nbytes
        versus(lambda: ops.flatten(tensors, to, out=out), lambda: out.copy_(vector), floor=0.9, moved=moved)

    def test_tiny_tensors(self) -> None:
        tensors = tiny()
        assert torch.equal(ops.flatten(tensors), parameters_to_vector(tensors))
        vector = ops.flatten(tensors)
        versus(lambda: ops.flatten(tensors), lambda: parameters_to_vector(tensors), floor=5)
        table = pyparam.ParamTable([str(i) for i in range(len(tensors))], tensors)
        versus(lambda: pyparam.flatten(table), lambda: parameters_to_vector(tensors), floor=10, on_host=True)
        versus(
            lambda: pyparam.scatter_(table, vector),
            lambda: vector_to_parameters(vector, tensors),
            floor=5,
            on_host=True,
        )


class TestFill:
    @pytest.mark.parametrize(
        "kind", [("normal", 2, 0.7), ("uniform", 1, 0.9), ("constant", 0, 0.95)], ids=str
    )
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_beside_one_value(self, kind: tuple[str, int, float], dtype: torch.dtype) -> None:
        _, number, floor = kind
        tensors = large(dtype, gib=2)
        n = len(tensors)
        columns = ([number] * n, [0.0, 1.0, 0.0, 0.0] * n, 7, list(range(n)), [], [])

        def torchs() -> None:
            for tensor in tensors:
                tensor.fill_(1.0)

        moved = sum(t.nbytes for t in tensors)
        ops.fill_(tensors, *columns)
        versus(lambda: ops.fill_(tensors, *columns), torchs, floor=floor, moved=moved)

    def test_normal_beside_torchs_own(self) -> None:
        tensors = large(gib=2)
        n = len(tensors)
        columns = ([2] * n, [0.0, 1.0, 0.0, 0.0] * n, 7, list(range(n)), [], [])
        versus(
            lambda: ops.fill_(tensors, *columns),
            lambda: [t.normal_() for t in tensors],
            floor=1.0,
            moved=n << 26,
        )


class TestMeasure:
    """Bound by reading: the peer copies half as many bytes, and so moves as many as ours reads."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("lead", [0, 1])
    def test_reading_at_the_speed_of_a_copy(self, dtype: torch.dtype, lead: int) -> None:
        tensors = large(dtype, lead=lead)
        if lead:  # slices of one vector, as gradient buckets are
            tensors = list(ops.unflatten(ops.flatten(tensors), tensors))
        moved = sum(t.nbytes for t in tensors)
        half = torch.empty(moved // 2, dtype=torch.uint8, device="cuda")
        out = torch.empty_like(half)
        values, counts = ops.measure(tensors)
        assert counts[-1, 0].item() == sum(t.numel() for t in tensors)
        assert values[-1, 0].item() == min(t.min().item() for t in tensors)
        versus(lambda: ops.measure(tensors), lambda: out.copy_(half), floor=0.85, moved=moved)
        digests = ops.fingerprint(tensors)
        assert torch.equal(digests[:1].cpu(), ops.fingerprint([tensors[0].cpu()]))
        versus(lambda: ops.fingerprint(tensors), lambda: out.copy_(half), floor=0.85, moved=moved)
        versus(lambda: ops.total_norm(tensors), lambda: out.copy_(half), floor=0.85, moved=moved)

    def test_histograms(self) -> None:
        tensors = large(gib=2)
        moved = sum(t.nbytes for t in tensors)
        half = torch.empty(moved // 2, dtype=torch.uint8, device="cuda")
        out = torch.empty_like(half)
        *_, counts = ops.measure_histogram(tensors)
        assert counts.sum().item() == 2 * sum(t.numel() for t in tensors)
        versus(lambda: ops.measure_histogram(tensors), lambda: out.copy_(half), floor=0.3, moved=moved)

    def test_beside_eight_ops_of_torch(self) -> None:
        tensors = large(gib=1)

        def torchs() -> list[Tensor]:
            out = []
            for t in tensors:
                out += [t.min(), t.max(), t.mean(), t.std(), t.norm(), t.abs().sum()]
                out += [(t == 0).sum(), t.isfinite().sum()]
            return out

        moved = sum(t.nbytes for t in tensors)
        versus(lambda: ops.measure(tensors), torchs, floor=8, moved=moved)

    def test_tiny_tensors(self) -> None:
        tensors = tiny()
        table = pyparam.ParamTable([str(i) for i in range(len(tensors))], tensors)

        def torchs() -> list[Tensor]:
            return [t.std() for t in tensors]

        assert pyparam.measure(table).total.numel == sum(t.numel() for t in tensors)
        versus(lambda: ops.measure(tensors), torchs, floor=20)
        versus(lambda: pyparam.measure(table), torchs, floor=20, on_host=True)
        versus(lambda: pyparam.fingerprint(table), torchs, floor=10, on_host=True)


class TestNorm:
    @pytest.mark.parametrize("p", [2.0, float("inf")])
    def test_tiny_gradients(self, p: float) -> None:
        tensors = tiny()
        table = pyparam.ParamTable([str(i) for i in range(len(tensors))], tensors)
        get_total_norm = torch.nn.utils.get_total_norm
        torch.testing.assert_close(pyparam.total_norm(table, p), get_total_norm(tensors, p))
        versus(lambda: pyparam.total_norm(table, p), lambda: get_total_norm(tensors, p), floor=10)
        # Under a millisecond of the CPU is what is asked of ours.
        versus(
            lambda: pyparam.total_norm(table, p), lambda: get_total_norm(tensors, p), floor=10, on_host=True
        )

    def test_clipping_tiny_gradients(self) -> None:
        parameters = [torch.nn.Parameter(t) for t in tiny()]
        for p in parameters:
            p.grad = torch.randn_like(p)
        clip_grad_norm_ = torch.nn.utils.clip_grad_norm_
        torch.testing.assert_close(
            pyparam.total_norm(parameters, grad=True), clip_grad_norm_(parameters, 1e9)
        )
        versus(
            lambda: pyparam.clip_grad_norm_(parameters, 1.0),
            lambda: clip_grad_norm_(parameters, 1.0),
            floor=5,
            on_host=True,
        )


class TestCompare:
    def test_reading_both_sides(self) -> None:
        a = large(gib=2)
        b = [t + 1e-3 for t in a]
        moved = 2 * sum(t.nbytes for t in a)
        half = torch.empty(moved // 2, dtype=torch.uint8, device="cuda")
        out = torch.empty_like(half)
        values, counts = ops.compare(a, b)
        assert (counts[:, 0] == a[0].numel()).all()
        torch.testing.assert_close(values[0, 0].item(), (a[0].double() - b[0].double()).abs().max().item())
        versus(lambda: ops.compare(a, b), lambda: out.copy_(half), floor=0.7, moved=moved)

    def test_with_a_copy_of_another_dtype(self) -> None:
        a = large(gib=1)
        b = [t.bfloat16() for t in a]
        moved = sum(t.nbytes for t in a) * 3 // 2

        def torchs() -> list[Tensor]:
            return [(x - y).abs().max() for x, y in zip(a, b, strict=True)]

        versus(lambda: ops.compare(a, b), torchs, floor=1, moved=moved)
