"""The bodies of the CUDA kernels of fill_, run on the host: the bits that the CPU's fill_ writes."""

from __future__ import annotations

import ctypes
import struct

import host_kernels
import pytest
import torch
from host_kernels import Table
from torch import Tensor

KINDS: dict[str, tuple[int, tuple[float, float, float, float]]] = {
    "uniform": (1, (-0.3, 1.7, 0.0, 0.0)),
    "uniform of 16 bits' edges": (1, (-0.1, 0.3, 0.0, 0.0)),
    "normal": (2, (0.5, 2.0, 0.0, 0.0)),
    "normal without spread": (2, (1.5, 0.0, 0.0, 0.0)),
    "truncated": (3, (0.0, 1.0, -2.0, 2.0)),
    "narrow": (3, (0.5, 1.0, 1.0, 1.0001)),
    "one-sided": (3, (0.0, 1.0, 0.5, float("inf"))),
    "far tail": (3, (0.0, 1.0, 8.0, 9.0)),
    "far lower tail": (3, (1.0, 0.1, float("-inf"), -3.0)),
}
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
SEED = 2**63 + 12345


def row_major(shape: torch.Size) -> list[int]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return strides[::-1]


def fill(
    tensors: list[Tensor],
    kind: str,
    chunk: int,
    offsets: list[int] | None = None,
    strides: list[list[int]] | None = None,
    moments: bool = False,
    backwards: bool = False,
) -> Tensor:
    """By the bodies. Stream of tensor i: 1000 + i."""
    table = Table(tensors, chunk, "fill_")
    sources, extents = b"", b""
    for i, tensor in enumerate(tensors):
        steps = strides[i] if strides else row_major(tensor.shape)
        dense = steps == row_major(tensor.shape)
        first = len(extents) // 16
        if not dense:
            extents += b"".join(struct.pack("qq", n, s) for n, s in zip(tensor.shape, steps, strict=True))
        offset = offsets[i] if offsets else 0
        sources += struct.pack("Qqiiii", 1000 + i, offset, 0, first, 0 if dense else tensor.dim(), i)
    number, parameters = KINDS[kind]
    result = torch.full((len(tensors), 2), float("nan"), dtype=torch.float64)
    host_kernels.library("fill").run_fill(
        ctypes.byref(table.view),
        ctypes.create_string_buffer(sources),
        ctypes.create_string_buffer(extents),
        number,
        (ctypes.c_double * 4)(*parameters),
        FLOATS.index(tensors[0].dtype),  # in the order of random::Stored
        ctypes.c_uint64(SEED),
        ctypes.c_void_p(result.data_ptr() if moments else None),
        backwards,
    )
    return result


def expected(
    tensors: list[Tensor],
    kind: str,
    offsets: list[int] | None = None,
    strides: list[list[int]] | None = None,
    moments: bool = False,
) -> Tensor:
    """By the CPU's kernel."""
    number, parameters = KINDS[kind]
    n = len(tensors)
    return torch.ops.pyparam.fill_(
        tensors,
        [number] * n,
        list(parameters) * n,
        SEED - 2**64,
        [1000 + i for i in range(n)],
        offsets or [],
        [step for row in strides for step in row] if strides else [],
        moments,
    )


def bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).clone(memory_format=torch.contiguous_format).view(torch.uint8)


def zoo(dtype: torch.dtype) -> list[Tensor]:
    room = torch.zeros(4000, dtype=dtype)
    return [
        torch.zeros(0, dtype=dtype),
        room[:1000],
        room[1001:1008],  # begins one element after a multiple of 16 bytes
        room[1016:1500].view(4, 11, 11),
        torch.zeros(40, 31, dtype=dtype).t(),
        torch.zeros(7, 9, 5, dtype=dtype)[::2, :, 1:4],
        torch.zeros(2, 3, 4, 5, dtype=dtype).contiguous(memory_format=torch.channels_last),
        torch.zeros((), dtype=dtype),
        torch.zeros(3, 0, dtype=dtype),
        room[2000:3303],
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("chunk", [3, 100, 1 << 14])
def test_every_layout_gets_the_cpus_bits(dtype: torch.dtype, kind: str, chunk: int) -> None:
    theirs = zoo(dtype)
    expected(theirs, kind)
    for backwards in (False, True):
        ours = zoo(dtype)
        fill(ours, kind, chunk, backwards=backwards)
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(bits(a), bits(b))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("kind", ["uniform", "normal", "far tail"])
def test_parts_of_a_whole(dtype: torch.dtype, kind: str) -> None:
    """Slices along rows and columns get what the whole has there, from any offset, also beyond 2^33."""
    whole = torch.zeros(30, 50, dtype=dtype)
    expected([whole], kind)
    rows, columns = torch.zeros(7, 50, dtype=dtype), torch.zeros(30, 11, dtype=dtype)
    for part, offset, strides in ((rows, 3 * 50, [50, 1]), (columns, 17, [50, 1])):
        fill([part], kind, 99, [offset], [strides])
    assert torch.equal(bits(rows), bits(whole[3:10]))
    assert torch.equal(bits(columns), bits(whole[:, 17:28]))
    for offset in (1, 2, 5, 2**33 + 3, 2**62):
        a, b = torch.zeros(2, 333, dtype=dtype).unbind()
        fill([a], kind, 64, [offset])
        expected([b], kind, [offset])
        assert torch.equal(bits(a), bits(b))


def test_unaligned_memory() -> None:
    """Elements that begin between two multiples of their size."""
    room, other = torch.zeros(2, 500, dtype=torch.uint8).unbind()
    for skip in (1, 2, 3):
        a, b = (
            torch.frombuffer(r.numpy(), dtype=torch.float32, count=100, offset=skip) for r in (room, other)
        )
        fill([a], "normal", 64)
        aligned = torch.zeros(100)
        expected([aligned], "normal")
        b.copy_(aligned)
        assert torch.equal(room, other)


@pytest.mark.parametrize("kind", ["uniform", "normal", "truncated", "far tail"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_moments_are_the_cpus_to_rounding(dtype: torch.dtype, kind: str) -> None:
    theirs = zoo(dtype)
    reference = expected(theirs, kind, moments=True)
    for backwards in (False, True):
        ours = zoo(dtype)
        got = fill(ours, kind, 64, moments=True, backwards=backwards)
        # The CPU sums float32 squares in float32, and the device in float64.
        assert torch.allclose(got, reference, rtol=1e-5, atol=2e-4, equal_nan=True)
        if dtype.itemsize > 2:
            for row, t in zip(got, ours, strict=True):
                if t.numel() == 0:
                    continue
                values = t.double()
                told = torch.stack([values.mean(), values.std(correction=0)])
                assert torch.allclose(row, told, rtol=1e-9, atol=3e-8)
        assert got.isnan().any(1).tolist() == [t.numel() == 0 for t in ours]
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(bits(a), bits(b))


@pytest.mark.parametrize("dtype", [*FLOATS, torch.uint8, torch.int64, torch.bool, torch.complex128], ids=str)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 14])
def test_constants_of_any_dtype(dtype: torch.dtype, chunk: int) -> None:
    values = [1.5, 0.0, 3.0]
    patterns = b""
    for value in values:
        one = torch.full((1,), value, dtype=dtype).view(torch.uint8)
        patterns += bytes(one.tolist()) * (16 // len(one)) + struct.pack("qq", len(one), 0)
    for backwards in (False, True):
        ours = zoo(dtype)
        table = Table(ours, chunk)
        which = [i % 3 for i in range(len(ours))]
        host_kernels.library("fill").run_constant(
            ctypes.byref(table.view),
            (ctypes.c_int32 * len(which))(*which),
            ctypes.create_string_buffer(patterns),
            backwards,
        )
        theirs = zoo(dtype)
        for tensor, k in zip(theirs, which, strict=True):
            tensor.fill_(values[k])
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(bits(a), bits(b))
        # Nothing beside the tensors: they lie in one piece of memory, with gaps.
        assert torch.equal(ours[1]._base, theirs[1]._base)
