"""The bodies of the CUDA kernels of flatten and scatter_, run on the host over the rows a device would get."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import host_kernels
import pytest
import torch
from dtypes import FLOATS
from host_kernels import DTYPE_NUMBERS, Table, address
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_flatten import DTYPES, filled, flattened, same, zoo
from torch import Tensor

from pyparam._base.native import _C

SATURATES = torch.tensor(1e6).to(torch.float8_e4m3fn).view(torch.uint8).item() == 0x7E


def native(table: Table, vector: Tensor, to_vector: bool, backwards: bool) -> None:
    host_kernels.library("transfer").run_transfer(
        ctypes.byref(table.view),
        address(vector),
        DTYPE_NUMBERS[vector.dtype],
        vector.element_size(),
        SATURATES,
        to_vector,
        backwards,
    )


def flatten(
    tensors: list[Tensor], dtype: torch.dtype, chunk: int, lead: int = 0, backwards: bool = False
) -> Tensor:
    """Into a vector that begins `lead` bytes after an address that is a multiple of 16."""
    table = Table(tensors, chunk)
    size = torch.empty(0, dtype=dtype).element_size()
    room = torch.full((table.numel * size + 64,), 0xA5, dtype=torch.uint8)
    start = -room.data_ptr() % 16 + 16 + lead
    vector = room[start : start + table.numel * size].view(dtype) if lead % size == 0 else None
    if vector is None:  # an address that torch itself would not make
        vector = torch.frombuffer(room.numpy(), dtype=dtype, count=table.numel, offset=start)
    native(table, vector, True, backwards)
    assert (room[:start] == 0xA5).all(), "wrote before the vector"
    assert (room[start + table.numel * size :] == 0xA5).all(), "wrote after the vector"
    return vector


def scatter(tensors: list[Tensor], vector: Tensor, chunk: int, backwards: bool = False) -> None:
    first = 0
    for count in _C.pieces_apart(tensors):
        table = Table(tensors[:count], chunk)
        native(table, vector[first : first + table.numel], False, backwards)
        first += table.numel
        tensors = tensors[count:]


def bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).clone(memory_format=torch.contiguous_format).view(torch.uint8)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 14])
def test_flatten_takes_every_layout(dtype: torch.dtype, chunk: int) -> None:
    tensors = zoo(dtype)
    expected = bits(flattened(tensors))
    for backwards in (False, True):
        assert torch.equal(bits(flatten(tensors, dtype, chunk, backwards=backwards)), expected)


@pytest.mark.parametrize("lead", range(16))
@pytest.mark.parametrize("skip", range(16))
def test_bytes_from_any_address_to_any_address(lead: int, skip: int) -> None:
    source = torch.randint(0, 256, (20_000,), dtype=torch.uint8)[skip:]
    tensors = [source[:16_400], source[16_400:16_405], source[:0], source[17_000:]]
    got = flatten(tensors, torch.uint8, 1 << 14, lead)
    assert torch.equal(got, torch.cat(tensors))


@pytest.mark.parametrize("to", DTYPES, ids=str)
@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_conversions_are_those_of_the_cpu(source: torch.dtype, to: torch.dtype) -> None:
    tensors = [
        *zoo(source)[:4],
        filled((1000,), source, 9)[3:],
        filled((0,), source),
        filled((33, 31), source).t(),
    ]
    expected = torch.ops.pyparam.flatten(tensors, to)
    for backwards in (False, True):
        got = flatten(tensors, to, 100, backwards=backwards)
        assert torch.equal(bits(got), bits(expected))


def special(dtype: torch.dtype) -> Tensor:
    """Every pattern of a narrow dtype; of a wide one patterns at each exponent, at ties, and at random."""
    width = torch.empty(0, dtype=dtype).element_size()
    if width == 1:
        return torch.arange(256, dtype=torch.int32).to(torch.uint8).view(dtype)
    if width == 2:
        return torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(dtype)
    generator = torch.Generator().manual_seed(3)
    if width == 4:
        exponents = torch.arange(512, dtype=torch.int64)[:, None] << 23
        steps = torch.tensor([0] + [d << k for k in range(9, 23) for d in (1, 2, 3, 5, 7)], dtype=torch.int64)
        near = torch.tensor([-1, 0, 1], dtype=torch.int64)
        grid = (exponents + (steps[None, :] & 0x7FFFFF)).reshape(-1, 1) + near
        random = torch.randint(0, 1 << 32, (200_000,), generator=generator)
        return torch.cat([grid.reshape(-1), random]).to(torch.uint32).view(dtype)
    floats = special(torch.float32).double()
    nudge = torch.tensor([-1, 0, 1], dtype=torch.int64)
    nearby = (floats.view(torch.int64)[:, None] + nudge).reshape(-1).view(torch.float64)
    high = torch.randint(-(1 << 62), 1 << 62, (100_000,), generator=generator).view(torch.float64)
    return torch.cat([nearby, high])


NARROW = [
    torch.float16,
    torch.bfloat16,
    torch.float8_e5m2,
    torch.float8_e4m3fn,
    torch.float8_e5m2fnuz,
    torch.float8_e4m3fnuz,
    torch.float8_e8m0fnu,
]


@pytest.mark.parametrize("to", [*NARROW, torch.float32, torch.float64, torch.bool, torch.complex64], ids=str)
@pytest.mark.parametrize("source", [torch.float32, torch.float64, *NARROW], ids=str)
def test_every_rounding_is_the_cpus(source: torch.dtype, to: torch.dtype) -> None:
    values = special(source)
    expected = torch.ops.pyparam.flatten([values], to)
    got = flatten([values], to, 1 << 14)
    if to in (torch.float32, torch.float64, torch.complex64):
        assert same(got, expected)  # any NaN for a NaN
    elif to == source:
        assert torch.equal(bits(got), bits(expected))
    else:
        a, b = got.float(), expected.float()
        unsigned = to in (torch.float8_e5m2fnuz, torch.float8_e4m3fnuz, torch.float8_e8m0fnu, torch.bool)
        wrong = (bits(got) != bits(expected)).view(len(values), -1).any(1) & ~(a.isnan() & b.isnan())
        assert not wrong.any(), (values[wrong][:5], got[wrong][:5], expected[wrong][:5])
        assert unsigned or torch.equal(a.isnan(), b.isnan())


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("source", [torch.int64, torch.uint64, torch.int32, torch.uint32], ids=str)
@pytest.mark.parametrize("to", [*FLOATS, *NARROW[2:], torch.complex32, torch.complex128, torch.bool], ids=str)
def test_integers_round_once(source: torch.dtype, to: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    patterns = torch.randint(-(1 << 62), 1 << 62, (20_000,), generator=generator)
    near = torch.tensor([(1 << k) + d for k in range(62) for d in (-1, 0, 1)])
    values = torch.cat([patterns >> 20, patterns, near, -near])
    values = (values if source.itemsize == 8 else values.to(torch.int32)).view(source)
    assert same(flatten([values], to, 1 << 14), torch.ops.pyparam.flatten([values], to))


@pytest.mark.parametrize("to", [torch.int64, torch.int32, torch.int8, torch.uint8, torch.uint64], ids=str)
def test_floats_in_range_truncate(to: torch.dtype) -> None:
    top = {1: 100.0, 4: 2e9, 8: 9e18}[to.itemsize]
    values = torch.linspace(
        0 if to.itemsize > 1 and not to.is_signed else -top, top, 10_001, dtype=torch.float64
    )
    if not to.is_signed:
        values = values.abs()
    assert torch.equal(bits(flatten([values], to, 999)), bits(torch.ops.pyparam.flatten([values], to)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 14])
def test_scatter_fills_every_layout(dtype: torch.dtype, chunk: int) -> None:
    def tensors() -> list[Tensor]:
        return [t for t in zoo(dtype) if 0 not in t.stride() or t.numel() == 0]

    ours, theirs = tensors(), tensors()
    vector = torch.cat([torch.zeros(1, dtype=dtype), filled((sum(t.numel() for t in ours),), dtype, 11)])[1:]
    torch.ops.pyparam.scatter_(theirs, vector)
    for backwards in (False, True):
        ours = tensors()
        scatter(ours, vector, chunk, backwards)
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(bits(a), bits(b))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_list_flattens_and_scatters(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    to = data.draw(st.sampled_from([dtype, *FLOATS]))
    tensors = []
    for k in range(data.draw(st.integers(0, 6))):
        shape = tuple(data.draw(st.lists(st.integers(0, 7), max_size=4)))
        tensor = filled(shape, dtype, k)
        if len(shape) > 1:
            tensor = tensor.permute(data.draw(st.permutations(range(len(shape)))))
        steps = data.draw(st.lists(st.integers(1, 3), min_size=len(shape), max_size=len(shape)))
        tensors.append(tensor[tuple(slice(None, None, step) for step in steps)])
    chunk = data.draw(st.integers(1, 300))
    size = torch.empty(0, dtype=to).element_size()
    lead = size * data.draw(st.integers(0, 16 // size))
    got = flatten(tensors, to, chunk, lead, data.draw(st.booleans()))
    if not tensors:
        assert got.numel() == 0
        return
    assert torch.equal(bits(got), bits(torch.ops.pyparam.flatten(tensors, to)))
    if to != dtype:
        return
    back = [torch.empty_like(t) for t in tensors]
    scatter(back, got, chunk, data.draw(st.booleans()))
    for a, b in zip(back, tensors, strict=True):
        assert torch.equal(bits(a), bits(b))


def test_beyond_two_to_the_31(tmp_path: Path) -> None:
    """Chunks far into a large tensor lie where they should: a sparse file, of which little is read."""
    numel = (1 << 31) + 100
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(numel)
        file.seek(numel - 7)
        file.write(bytes(range(1, 8)))
    large = torch.from_file(str(path), shared=False, size=numel, dtype=torch.uint8)
    table = Table([large, torch.full((3,), 9, dtype=torch.uint8)], 1 << 20)
    rows = [struct.unpack("qqqqihbB", bytes(table.bytes[at : at + 40].tolist())) for at in (0, 40, 80)]
    assert [row[1] for row in rows] == [numel, 3, 0]
    assert [row[2] for row in rows] == [0, numel, numel + 3]
    chunks = (numel + (1 << 20) - 1) >> 20
    assert [row[3] for row in rows] == [0, chunks, chunks + 1]
    # The last chunk of the large tensor and the one of the small: a table of the two alone.
    first = (chunks - 1) << 20
    view = host_kernels.TableView.from_buffer_copy(table.view)
    view.chunks = table.view.chunks + 16 * (chunks - 1)
    view.chunk_count = 2
    out = torch.zeros(numel - first + 3, dtype=torch.uint8)
    host_kernels.library("transfer").run_transfer(
        ctypes.byref(view), ctypes.c_void_p(out.data_ptr() - first), 0, 1, SATURATES, True, False
    )
    assert out[-10:].tolist() == [1, 2, 3, 4, 5, 6, 7, 9, 9, 9]
