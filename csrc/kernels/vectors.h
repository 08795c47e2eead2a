// Sixteen bytes at a time, from any address. No torch header.
#pragma once

#include <cstdint>

#include "kernels/block.h"

namespace pyparam {

struct alignas(16) Vector16 {
  uint32_t word[4];
};

constexpr int64_t kVectorBytes = 16;

// Element i of an array of 32-bit words, for i known at compile time: else the words would go
// through memory.
template <typename Stored>
PYPARAM_DEVICE Stored element_of(const uint32_t* words, int i) {
  if constexpr (sizeof(Stored) == 8) {
    return static_cast<Stored>(static_cast<uint64_t>(words[2 * i + 1]) << 32 | words[2 * i]);
  } else {
    constexpr int kInWord = 4 / static_cast<int>(sizeof(Stored));
    return static_cast<Stored>(words[i / kInWord] >>
                               (8 * static_cast<int>(sizeof(Stored)) * (i % kInWord)));
  }
}
// Elements come in order: the first of a word sets it.
template <typename Stored>
PYPARAM_DEVICE void put_element(uint32_t* words, int i, Stored stored) {
  static_assert(Stored(-1) > Stored(0), "bits without a sign");
  if constexpr (sizeof(Stored) == 8) {
    words[2 * i] = static_cast<uint32_t>(stored);
    words[2 * i + 1] = static_cast<uint32_t>(stored >> 32);
  } else {
    constexpr int kInWord = 4 / static_cast<int>(sizeof(Stored));
    const uint32_t bits = static_cast<uint32_t>(stored)
                          << (8 * static_cast<int>(sizeof(Stored)) * (i % kInWord));
    words[i / kInWord] = i % kInWord == 0 ? bits : words[i / kInWord] | bits;
  }
}

// At most this many bytes before an address is a multiple of 16.
PYPARAM_DEVICE int64_t bytes_to_vector(const void* address) {
  return static_cast<int64_t>((16 - (reinterpret_cast<uintptr_t>(address) & 15)) & 15);
}

// From and to addresses that are multiples of 16: one access on a device, in global memory (which
// addresses that were read from a table do not say by themselves).
PYPARAM_DEVICE Vector16 load_vector(const char* from) {
#if defined(__CUDA_ARCH__)
  __builtin_assume(__isGlobal(from));
  const uint4 v = *reinterpret_cast<const uint4*>(from);
  return {{v.x, v.y, v.z, v.w}};
#else
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0) __builtin_trap();  // a device would fault
  Vector16 v;
  std::memcpy(&v, from, sizeof(v));
  return v;
#endif
}
PYPARAM_DEVICE void store_vector(char* to, const Vector16& v) {
#if defined(__CUDA_ARCH__)
  __builtin_assume(__isGlobal(to));
  *reinterpret_cast<uint4*>(to) = make_uint4(v.word[0], v.word[1], v.word[2], v.word[3]);
#else
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0) __builtin_trap();
  std::memcpy(to, &v, sizeof(v));
#endif
}

// Bytes shift .. shift + 15 of two neighbouring vectors, shift in [0, 15]: what an unaligned load
// would give. No word is indexed by a number known only at run time, which would send the words
// through memory.
PYPARAM_DEVICE Vector16 shifted(const Vector16& low, const Vector16& high, uint32_t shift) {
  uint32_t w[8] = {low.word[0],  low.word[1],  low.word[2],  low.word[3],
                   high.word[0], high.word[1], high.word[2], high.word[3]};
  if (shift & 8) {
    PYPARAM_UNROLL(6)
    for (int i = 0; i < 6; ++i) w[i] = w[i + 2];
  }
  if (shift & 4) {
    PYPARAM_UNROLL(5)
    for (int i = 0; i < 5; ++i) w[i] = w[i + 1];
  }
  const uint32_t bits = (shift & 3) * 8;
  Vector16 out;
  PYPARAM_UNROLL(4)
  for (int i = 0; i < 4; ++i) {
    const uint64_t pair = static_cast<uint64_t>(w[i + 1]) << 32 | w[i];
    out.word[i] = static_cast<uint32_t>(pair >> bits);
  }
  return out;
}

// A run of bytes that begins anywhere, read by vectors. With shift 0 each vector is one load, else
// two, of which one was just read by the neighbour.
//
// A vector read here lies in the 16-byte cells of the run's own bytes: it may begin before the run,
// never past a cell with one of its bytes.
struct VectorRun {
  const char* cells;  // the run's first byte, rounded down to a multiple of 16
  uint32_t shift;
  int64_t whole;  // vectors that can be read without touching a cell beyond the run

  PYPARAM_DEVICE VectorRun(const char* from, int64_t bytes) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(from);
    shift = static_cast<uint32_t>(address & 15);
    cells = from - shift;
    whole = shift == 0 ? bytes / 16 : (bytes + shift) / 16 - 1;
    if (whole < 0) whole = 0;
  }
  template <bool kShifted>
  PYPARAM_DEVICE Vector16 load(int64_t index) const {
    const char* at = cells + 16 * index;
    if constexpr (!kShifted) return load_vector(at);
    return shifted(load_vector(at), load_vector(at + 16), shift);
  }
  PYPARAM_DEVICE Vector16 load(int64_t index) const {
    return shift == 0 ? load<false>(index) : load<true>(index);
  }
  // Several, `step` apart: one branch for all of them.
  template <int kCount>
  PYPARAM_DEVICE void load(int64_t index, int step, Vector16 (&v)[kCount]) const {
    if (shift == 0) {
      PYPARAM_UNROLL(8)
      for (int u = 0; u < kCount; ++u) v[u] = load<false>(index + u * step);
    } else {
      PYPARAM_UNROLL(8)
      for (int u = 0; u < kCount; ++u) v[u] = load<true>(index + u * step);
    }
  }
};

// Calls take(vector, index) for the whole vectors thread, thread + kThreads ... of a run, kInFlight
// of them asked for before the first is used. Returns the thread's next index.
template <int kThreads, int kInFlight, typename Take>
PYPARAM_DEVICE int32_t each_vector(const VectorRun& run, int thread, const Take& take) {
  const auto whole = static_cast<int32_t>(run.whole);
  int32_t g = thread;
  if constexpr (kInFlight > 1) {
    PYPARAM_UNROLL(1)
    for (; g + (kInFlight - 1) * kThreads < whole; g += kInFlight * kThreads) {
      Vector16 v[kInFlight];
      run.load(g, kThreads, v);
      PYPARAM_UNROLL(8)
      for (int u = 0; u < kInFlight; ++u) take(v[u], g + u * kThreads);
    }
  }
  PYPARAM_UNROLL(1)
  for (; g < whole; g += kThreads) take(run.load(g), g);
  return g;
}

}  // namespace pyparam
