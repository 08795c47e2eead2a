"""The rows that CUDA kernels get of a list of tensors: csrc/kernels/device_table.h."""

from __future__ import annotations

import struct

import pytest
import torch
from host_kernels import DTYPE_NUMBERS, Table
from reference_flatten import zoo
from torch import Tensor

from pyparam._base.native import _C


def rows(table: Table, at: int, layout: str, count: int) -> list[tuple[int, ...]]:
    size = struct.calcsize(layout)
    offset = at - table.bytes.data_ptr()
    data = bytes(table.bytes[offset : offset + size * count].tolist())
    return list(struct.iter_unpack(layout, data))


def tensor_rows(table: Table) -> list[tuple[int, ...]]:
    return rows(table, table.view.tensors, "QqqqihbB", table.view.tensor_count + 1)


def chunk_rows(table: Table) -> list[tuple[int, ...]]:
    return rows(table, table.view.chunks, "qii", table.view.chunk_count)


def elements(table: Table) -> list[list[int]]:
    """The address of each element of each tensor, from the rows alone."""
    found: list[list[int]] = [[] for _ in range(table.view.tensor_count)]
    tensors = tensor_rows(table)
    for begin, t, length in chunk_rows(table):
        data, _, _, _, first, count, _, item = tensors[t]
        assert item == table.tensors[t].element_size()
        extents = rows(table, table.view.extents + 16 * first, "qq", count)
        size = table.tensors[t].element_size()
        for index in range(begin, begin + length):
            place, rest = 0, index
            for extent, stride in reversed(extents):
                place += rest % extent * stride
                rest //= extent
            found[t].append(data + (place if extents else index) * size)
    return found


def addresses(tensor: Tensor) -> list[int]:
    if tensor.numel() == 0:
        return []
    offsets = torch.zeros((), dtype=torch.int64)
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        offsets = offsets[..., None] + torch.arange(size) * stride
    return (tensor.data_ptr() + offsets.reshape(-1) * tensor.element_size()).tolist()


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_every_element_stands_in_one_chunk_at_its_place(chunk: int) -> None:
    tensors = [*zoo(), *zoo(torch.int8), torch.zeros((), dtype=torch.complex128)]
    table = Table(tensors, chunk)
    assert elements(table) == [addresses(t) for t in tensors]
    described = tensor_rows(table)
    position = chunks = 0
    for tensor, row in zip(tensors, described, strict=False):
        assert row[1:4] == (tensor.numel(), position, chunks)
        assert row[6] == DTYPE_NUMBERS[tensor.dtype]
        assert (row[5] == 0) == (tensor.is_contiguous() or tensor.numel() == 0)
        position += tensor.numel()
        chunks += -(-tensor.numel() // chunk)
    assert described[-1] == (0, 0, position, chunks, 0, 0, 0, 0)
    assert table.numel == position
    assert all(0 < length <= chunk for _, _, length in chunk_rows(table))


def test_neighbouring_dimensions_that_step_evenly_are_one() -> None:
    base = torch.zeros(4, 6, 8)
    cases = {
        "rows of a slice": (base[:, :, :5], [(24, 8), (5, 1)]),
        "every second": (base.view(-1)[::2], [(96, 2)]),
        "transposed": (base.transpose(0, 2), [(8, 1), (6, 8), (4, 48)]),
        "expanded": (base[0, 0, :1].expand(9), [(9, 0)]),
        "one element left": (base[:, :1, ::8], [(4, 48)]),
    }
    for name, (tensor, expected) in cases.items():
        table = Table([tensor], 100)
        row = tensor_rows(table)[0]
        assert rows(table, table.view.extents, "qq", row[5]) == expected, name


def test_no_tensors_and_only_empty_ones() -> None:
    for tensors in ([], [torch.zeros(0), torch.zeros(3, 0)]):
        table = Table(tensors, 10)
        assert (table.view.tensor_count, table.view.chunk_count, table.numel) == (len(tensors), 0, 0)


def test_columns_are_aligned_for_vector_loads() -> None:
    for count in range(1, 8):
        table = Table([torch.zeros(3, 2).t() for _ in range(count)], 4)
        start = table.bytes.data_ptr()
        assert (table.view.extents - start) % 16 == (table.view.chunks - start) % 16 == 0


def test_freed_memory_is_refused_by_name() -> None:
    freed = torch.zeros(100)
    freed.untyped_storage().resize_(0)
    with pytest.raises(
        ValueError, match=r"flatten: tensors\[1\] needs a storage of 400 bytes and has one of 0"
    ):
        Table([torch.zeros(2), freed], 10, "flatten")


def test_lists_are_cut_where_tensors_share_memory() -> None:
    base = torch.zeros(100)
    other = torch.zeros(10)
    assert _C.pieces_apart([]) == [0]
    assert _C.pieces_apart([base[:50], other, base[50:]]) == [3]
    assert _C.pieces_apart([base[50:], other, base[:50]]) == [3]
    assert _C.pieces_apart([base, other, base]) == [2, 1]
    assert _C.pieces_apart([base[:60], base[50:], base[:0], base[40:70], other]) == [1, 2, 2]
    # Interleaved columns count as sharing: bytes are compared by their extent.
    assert _C.pieces_apart([base.view(10, 10)[:, 0], base.view(10, 10)[:, 1]]) == [1, 1]
