#include "kernels/cpu/draw_tile.h"

#include <ATen/Version.h>

#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
// Vectors wider than the baseline's are passed by reference alone, within functions that inline.
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

#include "kernels/cpu/isa.h"
#include "kernels/philox.h"

namespace pyparam::cpu {
namespace {

using random::Draw;
using random::Key;
using random::Map;

#define PYPARAM_FORCE_INLINE inline __attribute__((always_inline))

typedef uint64_t u64x2 __attribute__((vector_size(16)));
typedef uint64_t u64x4 __attribute__((vector_size(32)));
typedef uint64_t u64x8 __attribute__((vector_size(64)));
typedef float f32x16 __attribute__((vector_size(64)));
typedef double f64x8 __attribute__((vector_size(64)));

// 32 x 32 -> 64 bit products lane by lane: one instruction on x86, which GCC 12 does not find by
// itself.
struct VectorProduct {
  template <typename Lanes>
  PYPARAM_FORCE_INLINE void operator()(const Lanes& a, uint32_t b, Lanes& product) const {
    const Lanes factor = Lanes{} + static_cast<uint64_t>(b);
#if defined(__x86_64__) && !defined(__clang__)
    if constexpr (sizeof(Lanes) == 64) {
      product = reinterpret_cast<Lanes>(__builtin_ia32_pmuludq512_mask(
          reinterpret_cast<__v16si>(a), reinterpret_cast<__v16si>(factor), __v8di{}, 0xFF));
    } else if constexpr (sizeof(Lanes) == 32) {
      product = reinterpret_cast<Lanes>(
          __builtin_ia32_pmuludq256(reinterpret_cast<__v8si>(a), reinterpret_cast<__v8si>(factor)));
    } else {
      product = reinterpret_cast<Lanes>(
          __builtin_ia32_pmuludq128(reinterpret_cast<__v4si>(a), reinterpret_cast<__v4si>(factor)));
    }
#else
    product = (a & 0xFFFFFFFFull) * factor;
#endif
  }
};

// Writes 4 * blocks words, and up to 4 * (lanes - 1) beyond.
template <typename Lanes>
PYPARAM_FORCE_INLINE void fill_words(uint64_t seed, uint64_t stream, uint64_t block, int64_t blocks,
                                     uint32_t* __restrict__ words) {
  constexpr int64_t kLanes = sizeof(Lanes) / sizeof(uint64_t);
  Lanes iota = {}, low = {}, high = {};
  for (int64_t i = 0; i < kLanes; ++i) {
    iota[i] = static_cast<uint64_t>(i);
    low[i] = static_cast<uint64_t>(i / 2 + i % 2 * kLanes);
    high[i] = low[i] + kLanes / 2;
  }
  for (int64_t j = 0; j < blocks; j += kLanes) {
    const Lanes index = iota + (block + static_cast<uint64_t>(j));
    Lanes w0 = index, w1 = index >> 32, w2 = Lanes{} + stream, w3 = Lanes{} + (stream >> 32);
    philox::rounds(w0, w1, w2, w3, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                   VectorProduct{});
    const Lanes front = (w0 & 0xFFFFFFFFull) | (w1 << 32), back = (w2 & 0xFFFFFFFFull) | (w3 << 32);
#if defined(__clang__)
    Lanes first, second;
    for (int64_t i = 0; i < kLanes; ++i) {
      first[i] = i % 2 == 0 ? front[i / 2] : back[i / 2];
      second[i] = i % 2 == 0 ? front[kLanes / 2 + i / 2] : back[kLanes / 2 + i / 2];
    }
#else
    const Lanes first = __builtin_shuffle(front, back, low);
    const Lanes second = __builtin_shuffle(front, back, high);
#endif
    __builtin_memcpy(words + 4 * j, &first, sizeof(first));
    __builtin_memcpy(words + 4 * j + 2 * kLanes, &second, sizeof(second));
  }
}

template <Map map>
PYPARAM_FORCE_INLINE void map_words(const Draw& shared, const uint32_t* __restrict__ words,
                                    int64_t blocks, float* __restrict__ out) {
  const Draw draw = shared;  // a copy no store to `out` can be thought to change
  for (int64_t p = 0; p < 2 * blocks; ++p) {
    random::values_of_pair<map>(draw, words[2 * p], words[2 * p + 1], out[2 * p], out[2 * p + 1]);
  }
}

template <Map map>
PYPARAM_FORCE_INLINE void map_words(const Draw& shared, const uint32_t* __restrict__ words,
                                    int64_t blocks, double* __restrict__ out) {
  const Draw draw = shared;
  for (int64_t p = 0; p < blocks; ++p) {
    random::values_of_pair<map>(draw, words[4 * p], words[4 * p + 1], words[4 * p + 2],
                                words[4 * p + 3], out[2 * p], out[2 * p + 1]);
  }
}

template <typename Lanes, typename Real>
PYPARAM_FORCE_INLINE void draw_tile(const Draw& draw, Key key, uint64_t block, int64_t blocks,
                                    Real* out) {
  alignas(64) uint32_t words[4 * kTileBlocks + 32];
  fill_words<Lanes>(key.seed, key.stream, block, blocks, words);
  switch (draw.map) {
    case Map::kUniform:
      return map_words<Map::kUniform>(draw, words, blocks, out);
    case Map::kNormal:
      return map_words<Map::kNormal>(draw, words, blocks, out);
    case Map::kTruncated:
      return map_words<Map::kTruncated>(draw, words, blocks, out);
    case Map::kFarTail:
      return map_words<Map::kFarTail>(draw, words, blocks, out);
    case Map::kKeep:
    case Map::kConstant:
      break;
  }
}

template <typename Vector, typename Real>
PYPARAM_FORCE_INLINE void sum_tile(const Real* values, int64_t count, double centre, Sums& sums) {
  constexpr int64_t kLanes = sizeof(Vector) / sizeof(Real);
  const Vector middle = Vector{} + static_cast<Real>(centre);
  Vector first = {}, second = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Vector x;
    __builtin_memcpy(&x, values + i, sizeof(x));
    x = x - middle;
    first = first + x;
    second = second + x * x;
  }
  if (i < count) {
    Vector x = middle;
    for (int64_t k = 0; i + k < count; ++k) x[k] = values[i + k];
    x = x - middle;
    first = first + x;
    second = second + x * x;
  }
  for (int64_t k = 0; k < kLanes; ++k) {
    sums.first += static_cast<double>(first[k]);
    sums.second += static_cast<double>(second[k]);
  }
}

#define PYPARAM_TILE_VARIANT(name, target, Lanes)                                                  \
  target void draw32_##name(const Draw& d, Key key, uint64_t block, int64_t blocks, float* out) {  \
    draw_tile<Lanes>(d, key, block, blocks, out);                                                  \
  }                                                                                                \
  target void draw64_##name(const Draw& d, Key key, uint64_t block, int64_t blocks, double* out) { \
    draw_tile<Lanes>(d, key, block, blocks, out);                                                  \
  }                                                                                                \
  target Sums sums32_##name(const float* x, int64_t count, double centre) {                        \
    Sums sums;                                                                                     \
    sum_tile<f32x16>(x, count, centre, sums);                                                      \
    return sums;                                                                                   \
  }                                                                                                \
  target Sums sums64_##name(const double* x, int64_t count, double centre) {                       \
    Sums sums;                                                                                     \
    sum_tile<f64x8>(x, count, centre, sums);                                                       \
    return sums;                                                                                   \
  }                                                                                                \
  target void to_bfloat16_##name(const float* x, int64_t count, uint16_t* __restrict__ out) {      \
    for (int64_t i = 0; i < count; ++i) out[i] = random::to_bfloat16(x[i]);                        \
  }                                                                                                \
  target void to_float16_##name(const float* x, int64_t count, uint16_t* __restrict__ out) {       \
    for (int64_t i = 0; i < count; ++i) out[i] = random::to_float16(x[i]);                         \
  }                                                                                                \
  constexpr TileFunctions k_##name = {draw32_##name, draw64_##name,      sums32_##name,            \
                                      sums64_##name, to_bfloat16_##name, to_float16_##name};

PYPARAM_TILE_VARIANT(baseline, , u64x2)
#if defined(__x86_64__)
// GCC prefers vectors of half the width unless it is told; clang takes the type's.
#if defined(__clang__)
#define PYPARAM_WIDE ""
#else
#define PYPARAM_WIDE ",prefer-vector-width=512"
#endif
PYPARAM_TILE_VARIANT(avx2, __attribute__((target("avx2"))), u64x4)
PYPARAM_TILE_VARIANT(avx512,
                     __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl" PYPARAM_WIDE))),
                     u64x8)
#endif

}  // namespace

const TileFunctions& tile_functions() {
#if defined(__x86_64__)
  static const TileFunctions& chosen = [&]() -> const TileFunctions& {
    const std::string capability = at::get_cpu_capability();
    Isa most = Isa::kBaseline;
    if (capability == "AVX2") most = Isa::kAvx2;
    if (capability.rfind("AVX512", 0) == 0) most = Isa::kAvx512;
    return for_best_isa(k_baseline, k_avx2, k_avx512, most);
  }();
  return chosen;
#else
  return k_baseline;
#endif
}

}  // namespace pyparam::cpu
