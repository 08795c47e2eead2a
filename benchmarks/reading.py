"""A loop that reads memory and does nothing else: the limit that measuring and hashing are held against.

Each thread adds up the words of its part of the bytes, by vectors of the width that is asked for and with a
plain loop: what the hardware prefetches is all that is fetched ahead. Compiled when it is first asked for.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence

from compiled import compiled
from torch import Tensor

SOURCE = """
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

typedef uint64_t Words __attribute__((vector_size(WIDTH)));

static uint64_t add_up(const char* data, int64_t nbytes) {
  constexpr int kSums = 4;
  Words sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums * WIDTH <= nbytes; i += kSums * WIDTH) {
    for (int j = 0; j < kSums; ++j) {
      Words words;
      std::memcpy(&words, data + i + j * WIDTH, WIDTH);
      sums[j] += words;
    }
  }
  uint64_t sum = 0;
  for (const Words& words : sums)
    for (int lane = 0; lane < WIDTH / 8; ++lane) sum += words[lane];
  for (; i + 8 <= nbytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, data + i, 8);
    sum += word;
  }
  return sum;
}

extern "C" uint64_t read_all(const char* const* data, const int64_t* nbytes, int64_t count, int64_t threads) {
  std::vector<uint64_t> sums(threads);
  const auto part = [&](int64_t thread) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t words = nbytes[i] / 8;
      const int64_t begin = words * thread / threads * 8;
      const int64_t end = thread + 1 == threads ? nbytes[i] : words * (thread + 1) / threads * 8;
      sums[thread] += add_up(data[i] + begin, end - begin);
    }
  };
  std::vector<std::thread> others;
  for (int64_t thread = 1; thread < threads; ++thread) others.emplace_back(part, thread);
  part(0);
  for (std::thread& other : others) other.join();
  uint64_t sum = 0;
  for (const uint64_t each : sums) sum += each;
  return sum;
}
"""

# Bytes of a vector and the compiler's flags, for each instruction set that pyparam has kernels for.
INSTRUCTION_SETS = {
    "avx512": (64, ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]),
    "avx2": (32, ["-mavx2"]),
    "baseline": (16, []),
}


@functools.cache
def _compiled(isa: str) -> ctypes.CDLL:
    width, flags = INSTRUCTION_SETS[isa]
    loaded = compiled(SOURCE, ["-pthread", *flags, f"-DWIDTH={width}"], ctypes.CDLL)
    loaded.read_all.restype = ctypes.c_uint64
    return loaded


class Reader:
    """Reads the bytes of contiguous tensors, each cut among so many threads."""

    def __init__(self, tensors: Sequence[Tensor], threads: int, isa: str) -> None:
        self._tensors = list(tensors)
        count = len(self._tensors)
        self._data = (ctypes.c_void_p * count)(*(t.data_ptr() for t in self._tensors))
        self._nbytes = (ctypes.c_int64 * count)(*(t.nbytes for t in self._tensors))
        self._threads = ctypes.c_int64(threads)
        self._read = _compiled(isa).read_all

    def __call__(self) -> int:
        """The sum of all words modulo 2^64."""
        count = ctypes.c_int64(len(self._tensors))
        return int(self._read(self._data, self._nbytes, count, self._threads))
