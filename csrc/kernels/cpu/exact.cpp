// Sums of float32 values without rounding, in float64 lanes.
//
// Float64 additions of multiples of u are exact while all sums stay within 2^53 u. So a run of
// 1,024 values whose exponents lie within 18 of the largest one adds up exactly in any order: a
// value is a multiple of 2^-23 of its own power of two, and the sum is below 2^11 times the
// largest. A square has 48 bits, too many for one sum; it is cut into a multiple of a fixed unit
// and the rest. Adding it to a large power of two leaves the multiple, and subtracting gives the
// rest (Ogita, Rump and Oishi 2005). Smaller values than those are put aside and added up by
// themselves, in the same way.
#include "kernels/cpu/exact.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/isa.h"

namespace pyparam::cpu {
namespace {

constexpr int64_t kRun = 1024;
constexpr int kSpan = 18;  // exponents that one sum may span
constexpr int kSumLanes = 16;
constexpr uint32_t kMagnitude = 0x7fffffffu;
constexpr uint32_t kInfinity = 0x7f800000u;

struct RunSums {
  double sum, magnitudes, squares, squares_rest;
};

struct RunRange {
  uint32_t least;  // of what is not zero, less one
  uint32_t largest;
};

PYPARAM_INLINE RunRange range_of_run(const float* x, int64_t n) {
  uint32_t least = kMagnitude;
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = bit_cast<uint32_t>(x[i]) & kMagnitude;
    least = std::min(least, bits - 1);
    largest = std::max(largest, bits);
  }
  return {least, largest};
}

// `unit` is a power of two beyond the sum of all squares.
PYPARAM_INLINE RunSums sum_run(const float* x, int64_t n, double unit) {
  double sum[kSumLanes] = {};
  double magnitudes[kSumLanes] = {};
  double high[kSumLanes];
  double low[kSumLanes] = {};
  for (double& lane : high) lane = unit;
  const auto take = [&](const float* from) __attribute__((always_inline)) {
    for (int j = 0; j < kSumLanes; ++j) {
      const double v = from[j];
      const double square = v * v;
      const double next = high[j] + square;
      low[j] += square - (next - high[j]);
      high[j] = next;
      sum[j] += v;
      magnitudes[j] += std::fabs(v);
    }
  };
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes) take(x + i);
  if (i < n) {
    float rest[kSumLanes] = {};
    std::memcpy(rest, x + i, static_cast<size_t>(n - i) * sizeof(float));
    take(rest);
  }
  RunSums out{};
  for (int j = 0; j < kSumLanes; ++j) {
    out.sum += sum[j];
    out.magnitudes += magnitudes[j];
    out.squares += high[j] - unit;
    out.squares_rest += low[j];
  }
  return out;
}

RunRange range_baseline(const float* x, int64_t n) { return range_of_run(x, n); }
RunSums sum_baseline(const float* x, int64_t n, double unit) { return sum_run(x, n, unit); }
#if defined(__x86_64__)
PYPARAM_TARGET_AVX2 RunRange range_avx2(const float* x, int64_t n) { return range_of_run(x, n); }
PYPARAM_TARGET_AVX2 RunSums sum_avx2(const float* x, int64_t n, double unit) {
  return sum_run(x, n, unit);
}
PYPARAM_TARGET_AVX512 RunRange range_avx512(const float* x, int64_t n) {
  return range_of_run(x, n);
}
PYPARAM_TARGET_AVX512 RunSums sum_avx512(const float* x, int64_t n, double unit) {
  return sum_run(x, n, unit);
}
#endif

RunRange range_of(const float* x, int64_t n) {
#if defined(__x86_64__)
  return for_best_isa(range_baseline, range_avx2, range_avx512)(x, n);
#else
  return range_baseline(x, n);
#endif
}

RunSums sums_of(const float* x, int64_t n, double unit) {
#if defined(__x86_64__)
  return for_best_isa(sum_baseline, sum_avx2, sum_avx512)(x, n, unit);
#else
  return sum_baseline(x, n, unit);
#endif
}

void add_run(exact::Sums& to, const float* x, int64_t n) {
  float kept[kRun];
  float aside[kRun];
  RunRange range = range_of(x, n);
  if (range.largest >= kInfinity) {
    for (int64_t i = 0; i < n; ++i)
      kept[i] = (bit_cast<uint32_t>(x[i]) & kMagnitude) < kInfinity ? x[i] : 0.0F;
    x = kept;
    range = range_of(x, n);
  }
  while (range.largest != 0) {
    const int exponent = std::max(1, static_cast<int>(range.largest >> 23));
    const int lowest = exponent - kSpan;
    int64_t left = 0;
    if (lowest > 1 && range.least + 1 < static_cast<uint32_t>(lowest) << 23) {
      const uint32_t limit = static_cast<uint32_t>(lowest) << 23;
      for (int64_t i = 0; i < n; ++i) {
        const uint32_t bits = bit_cast<uint32_t>(x[i]) & kMagnitude;
        const bool small = bits < limit;
        aside[left] = x[i];
        left += small && bits != 0;
        kept[i] = small ? 0.0F : x[i];
      }
      x = kept;
    }
    const RunSums sums = sums_of(x, n, power_of_two(2 * (exponent - 127) + 13));
    to.values.add(sums.sum);
    to.magnitudes.add(sums.magnitudes);
    to.squares.add(sums.squares);
    to.squares.add(sums.squares_rest);
    if (left == 0) return;
    if (left < kSumLanes) {
      for (int64_t i = 0; i < left; ++i) to.add(aside[i]);
      return;
    }
    // What was put aside takes the place of the run; `kept` may be written to from now on.
    std::memcpy(kept, aside, static_cast<size_t>(left) * sizeof(float));
    x = kept;
    n = left;
    range = range_of(x, n);
  }
}

}  // namespace

void add_exactly(exact::Sums& to, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += kRun) add_run(to, x + i, std::min(kRun, n - i));
}

void add_exactly(exact::Sums& to, const double* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (is_finite(x[i])) to.add(x[i]);
  }
}

}  // namespace pyparam::cpu
