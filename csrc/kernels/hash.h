// The fingerprint's arithmetic, for the CPU and for CUDA. Integers only, so every order of
// summation agrees.
//
// Bytes are read as little-endian 64-bit words w[0], w[1], ...; the last one is padded with zeros.
// Word i has the position p = i + 1, and a scrambled value m(w, p) that depends on both. Two sums
// modulo 2^64 describe a sequence:
//
//     plain = sum of m(w[p - 1], p)        placed = sum of p * m(w[p - 1], p)
//
// m is a bijection of w for each p, so changing one word always changes both the scrambled word and
// `plain`. Changes of several words cancel in `plain` as rarely as random numbers do, and have then
// to cancel in `placed` as well. Sums of pieces add up, in any order: a tensor may be cut anywhere,
// by any number of threads or devices.
//
// The scrambler is the finaliser of SplitMix64 (Steele, Lea and Flood, 2014) with Stafford's
// constants "Mix13".
//
// These formulas are format 1 (kHashFormat). A change of any of them changes stored fingerprints
// and needs a new format number; the known-answer test holds them in place.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/macros.h"

namespace pyparam::hash {

inline constexpr int kHashFormat = 1;
inline constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;  // 2^64 / golden ratio, odd

inline constexpr uint64_t kFirstFactor = 0xbf58476d1ce4e5b9u;
inline constexpr uint64_t kSecondFactor = 0x94d049bb133111ebu;
inline constexpr int kFirstShift = 30;
inline constexpr int kSecondShift = 27;
inline constexpr int kLastShift = 31;

PYPARAM_FORMULA uint64_t mix(uint64_t z) {
  z = (z ^ (z >> kFirstShift)) * kFirstFactor;
  z = (z ^ (z >> kSecondShift)) * kSecondFactor;
  return z ^ (z >> kLastShift);
}

// m(word, position), where `key` is position * kStep: a loop over words adds kStep instead of
// multiplying.
PYPARAM_FORMULA uint64_t scramble(uint64_t word, uint64_t key) { return mix(word + key); }

struct Sums {
  uint64_t plain = 0;
  uint64_t placed = 0;

  PYPARAM_FORMULA void add(const Sums& other) {
    plain += other.plain;
    placed += other.placed;
  }
  // Adds one word. `index` counts from 0.
  PYPARAM_FORMULA void add_word(uint64_t word, uint64_t index) {
    const uint64_t position = index + 1;
    const uint64_t scrambled = scramble(word, position * kStep);
    plain += scrambled;
    placed += position * scrambled;
  }
};

struct Digest {
  uint64_t low = 0;
  uint64_t high = 0;
};

// Spreads both sums over both halves. A three-round Feistel network: no two pairs of sums share a
// digest.
PYPARAM_FORMULA Digest finish(const Sums& sums) {
  const uint64_t left = sums.plain ^ mix(sums.placed + kStep);
  const uint64_t right = sums.placed ^ mix(left + 2 * kStep);
  return {left ^ mix(right + 3 * kStep), right};
}

// The word made of `count` <= 8 bytes, as a memcpy into a zero word, without its call.
inline uint64_t partial_word(const void* bytes, int64_t count) {
  uint64_t word = 0;
  if (count == 8) {
    std::memcpy(&word, bytes, 8);
    return word;
  }
  const auto* byte = static_cast<const unsigned char*>(bytes);
  for (int64_t i = 0; i < count; ++i) word |= static_cast<uint64_t>(byte[i]) << (8 * i);
  return word;
}

// A tensor's digest is that of a record: the sums over its elements' bytes, its element type, its
// shape. The description can be summed first, the bytes added when they are known. `dtype` is the
// number of the c10::ScalarType, which PyTorch keeps fixed.
template <typename Size>
PYPARAM_FORMULA Sums describe_tensor(int dtype, const Size* sizes, int64_t dims) {
  Sums record;
  record.add_word(static_cast<uint64_t>(dtype), 2);
  record.add_word(static_cast<uint64_t>(dims), 3);
  for (int64_t d = 0; d < dims; ++d) {
    record.add_word(static_cast<uint64_t>(sizes[d]), static_cast<uint64_t>(4 + d));
  }
  return record;
}
PYPARAM_FORMULA Digest tensor_digest(Sums description, const Sums& bytes) {
  description.add_word(bytes.plain, 0);
  description.add_word(bytes.placed, 1);
  return finish(description);
}

// What a name adds to the record of its entry, taken in piece by piece, so that the names of a
// module's parameters begin with what its own name came to.
class NameSums {
 public:
  void append(const char* text, int64_t count) {
    while (count > 0) {
      const auto begun = static_cast<int64_t>(length_ % 8);
      const int64_t taken = count < 8 - begun ? count : 8 - begun;
      word_ |= partial_word(text, taken) << (8 * begun);
      length_ += static_cast<uint64_t>(taken);
      text += taken;
      count -= taken;
      if (length_ % 8 != 0) return;
      sums_.add_word(word_, kFirstOfName + length_ / 8 - 1);
      word_ = 0;
    }
  }
  Sums sums() const {
    Sums out = sums_;
    out.add_word(length_, 2);
    if (length_ % 8 != 0) out.add_word(word_, kFirstOfName + length_ / 8);
    return out;
  }

 private:
  static constexpr uint64_t kFirstOfName = 3;
  Sums sums_;
  uint64_t word_ = 0;  // that is begun
  uint64_t length_ = 0;
};

// What one named digest adds to the sum over a table. Adding needs no order of names; scrambling
// name and digest together ties each digest to its name. `name` is what NameSums gives.
inline Digest entry_digest(Sums name, const Digest& digest) {
  name.add_word(digest.low, 0);
  name.add_word(digest.high, 1);
  return finish(name);
}

// The digest of a table from the sums of its entries' halves.
inline Digest table_digest(const Digest& entries, int64_t count) {
  Sums record;
  record.add_word(entries.low, 0);
  record.add_word(entries.high, 1);
  record.add_word(static_cast<uint64_t>(count), 2);
  return finish(record);
}

}  // namespace pyparam::hash
