"""Verbs over tens of thousands of tiny tensors, on one thread, beside a loop that only reads them.

What has to be read of a tensor lies in three places: its own fields (three or four cache lines), its
storage's (two) and its values. The loop asks for them ahead, as the verbs do, adds up the values, and does
nothing else: it finds no extremes, rounds nothing and writes nothing.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from compiled import compiled
from models import mixture
from pairing import versus
from torch import Tensor

import pyparam

SOURCE = """
#include <cstdint>

extern "C" float read_tensors(const char* const* tensors, const int64_t* numels, int64_t count,
                              int64_t storage_at, int64_t data_at) {
  const auto storage_of = [&](int64_t i) {
    return *reinterpret_cast<const char* const*>(tensors[i] + storage_at);
  };
  const auto data_of = [&](int64_t i) {
    return *reinterpret_cast<const float* const*>(storage_of(i) + data_at);
  };
  const auto ask = [](const void* at, int lines) {
    for (int line = 0; line < lines; ++line) __builtin_prefetch(static_cast<const char*>(at) + 64 * line);
  };
  float sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (i + 36 < count) ask(tensors[i + 36], 4);
    if (i + 24 < count) ask(storage_of(i + 24), 2);
    if (i + 12 < count) ask(data_of(i + 12), static_cast<int>((numels[i + 12] * 4 + 63) / 64));
    for (int line = 0; line < 3; ++line) sum += *reinterpret_cast<const int32_t*>(tensors[i] + 64 * line);
    const float* data = data_of(i);
    float values = 0;
    for (int64_t k = 0; k < numels[i]; ++k) values += data[k];
    sum += values;
  }
  return sum;
}
"""


@functools.cache
def _compiled() -> ctypes.CDLL:
    loaded = compiled(SOURCE, ["-march=native", "-ffast-math"], ctypes.CDLL)
    loaded.read_tensors.restype = ctypes.c_float
    return loaded


def _place(of: int, pointer: int) -> int:
    """Where an object of torch's holds a pointer, in bytes."""
    words = ctypes.cast(of, ctypes.POINTER(ctypes.c_uint64))
    return 8 * next(i for i in range(2, 16) if words[i] == pointer)


class TinyReader:
    """Reads float32 tensors, each the whole of its storage."""

    def __init__(self, tensors: list[Tensor]) -> None:
        assert all(t.dtype is torch.float32 and t.untyped_storage().nbytes() == t.nbytes for t in tensors)
        self._held = tensors
        count = len(tensors)
        storage = tensors[0].untyped_storage()
        self._arguments = (
            (ctypes.c_void_p * count)(*(t._cdata for t in tensors)),
            (ctypes.c_int64 * count)(*(t.numel() for t in tensors)),
            ctypes.c_int64(count),
            ctypes.c_int64(_place(tensors[0]._cdata, storage._cdata)),
            ctypes.c_int64(_place(storage._cdata, storage.data_ptr())),
        )

    def __call__(self) -> float:
        return float(_compiled().read_tensors(*self._arguments))


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


VERBS: dict[str, tuple[Callable[[Any], Any], float]] = {
    "measure": (pyparam.measure, 60),
    "total_norm": (pyparam.total_norm, 40),
    "fingerprint": (lambda table: pyparam.fingerprint(table).total, 50),
}


@pytest.mark.parametrize("verb", list(VERBS))
def test_beside_a_loop_that_only_reads(benchmark: Any, verb: str, one_thread: None) -> None:
    table = pyparam.walk(mixture())
    tensors = list(table.tensors)
    reader = TinyReader(tensors)
    assert reader() != 0
    called, aim = VERBS[verb]
    pair = versus(benchmark, lambda: called(table), reader, rounds=15)
    ours, peer = (1e9 * seconds / len(tensors) for seconds in (pair.ours, pair.peer))
    print(f"{verb}: {ours:.0f} ns a tensor (aim {aim:.0f}), the loop {peer:.0f} ns")
