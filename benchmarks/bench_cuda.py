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
