// Sums of values without rounding, in float64 lanes.
//
// Float64 additions of multiples of u are exact while all sums stay within 2^53 u. So a run of
// 2,048 float32 values whose exponents lie within 18 of the largest one adds up exactly in any
// order: a value is a multiple of 2^-23 of its own power of two, and the sum is below 2^12 times
// that of the largest. A square has 48 bits, too many for one sum; it is cut into a multiple of a
// fixed unit and the rest. Adding it to a large power of two leaves the multiple, and subtracting
// gives the rest (Ogita, Rump and Oishi 2005). Values that span more are summed in windows of as
// many powers of two: those of the first as they are read, while smaller ones are copied for the
// next. Of bfloat16, whose squares have 16 bits, a lane holds the 128 that it gets as they are for
// 15 powers of two, and 256 for 14. Where the machine multiplies integers of 52 bits, magnitudes
// are such, and their squares are cut in two by it. Of float64 values all that is added is cut so:
// the values, their magnitudes, their squares rounded to float64, and what that rounding leaves,
// which a fused multiplication gives.
//
// What measuring a block (lanes_exact_target.h) could not sum so, float64 values that span more and
// what is below three windows of others, is summed here level by level: the values of so many
// powers of two at a time.
#include "kernels/cpu/exact.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/isa.h"

namespace pyparam::cpu {
namespace {

constexpr int kSumLanes = 16;
constexpr int kDoubleLanes = 8;
constexpr int kDoubleSpan = 15;

template <typename T>
struct Float;
template <>
struct Float<float> {
  using Bits = uint32_t;
  static constexpr Bits kMagnitude = 0x7fffffffu;
  static constexpr Bits kInfinity = 0x7f800000u;
  static constexpr int kFraction = 23;
  static constexpr int kSpan = kExactSpan;
};
template <>
struct Float<double> {
  using Bits = uint64_t;
  static constexpr Bits kMagnitude = 0x7fffffffffffffffu;
  static constexpr Bits kInfinity = 0x7ff0000000000000u;
  static constexpr int kFraction = 52;
  static constexpr int kSpan = kDoubleSpan;
};

// The largest magnitude's bits of those below a limit.
template <typename T>
PYPARAM_INLINE typename Float<T>::Bits largest_below(const T* x, int64_t n,
                                                     typename Float<T>::Bits limit) {
  using Bits = typename Float<T>::Bits;
  Bits lanes[kSumLanes] = {};
  const auto take = [&](int j, T value) __attribute__((always_inline)) {
    const Bits bits = bit_cast<Bits>(value) & Float<T>::kMagnitude;
    const Bits counted = bits < limit ? bits : 0;
    lanes[j] = counted > lanes[j] ? counted : lanes[j];
  };
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes) {
    for (int j = 0; j < kSumLanes; ++j) take(j, x[i + j]);
  }
  for (int j = 0; i < n; ++i, ++j) take(j, x[i]);
  return *std::max_element(lanes, lanes + kSumLanes);
}

// The sums of a level: the values whose magnitudes' bits are in [from, to).
struct LevelSums {
  double values[2], magnitudes[2], squares[4];
};

// Copies a level, with zeros for the other values and up to whole lanes: plain loops, which the
// compiler turns into vectors.
template <typename T>
PYPARAM_INLINE int64_t copy_level(const T* x, int64_t n, typename Float<T>::Bits from,
                                  typename Float<T>::Bits to, T* out) {
  using Bits = typename Float<T>::Bits;
  for (int64_t i = 0; i < n; ++i) {
    const Bits bits = bit_cast<Bits>(x[i]) & Float<T>::kMagnitude;
    out[i] = bits - from < to - from ? x[i] : T(0);
  }
  const int64_t padded = (n + kSumLanes - 1) / kSumLanes * kSumLanes;
  for (int64_t i = n; i < padded; ++i) out[i] = 0;
  return padded;
}

// Exponents are without their bias.
PYPARAM_INLINE LevelSums sum_level(const float* x, int64_t n, uint32_t from, uint32_t to,
                                   int exponent) {
  alignas(64) float picked[kExactRun];
  const int64_t padded = copy_level(x, n, from, to, picked);
  const double unit = power_of_two(2 * exponent + 13);
  double values[kSumLanes] = {};
  double magnitudes[kSumLanes] = {};
  double high[kSumLanes];
  double low[kSumLanes] = {};
  for (double& lane : high) lane = unit;
  for (int64_t i = 0; i < padded; i += kSumLanes) {
    for (int j = 0; j < kSumLanes; ++j) {
      const double v = picked[i + j];
      const double square = v * v;  // 48 bits: exact
      const double next = high[j] + square;
      low[j] += square - (next - high[j]);
      high[j] = next;
      values[j] += v;
      magnitudes[j] += std::fabs(v);
    }
  }
  LevelSums out{};
  for (int j = 0; j < kSumLanes; ++j) {
    out.values[0] += values[j];
    out.magnitudes[0] += magnitudes[j];
    out.squares[0] += high[j] - unit;
    out.squares[1] += low[j];
  }
  return out;
}

PYPARAM_INLINE LevelSums sum_level(const double* x, int64_t n, uint64_t from, uint64_t to,
                                   int exponent) {
  alignas(64) double picked[kExactRun];
  const int64_t padded = copy_level(x, n, from, to, picked);
  // Sums of both signs start in the middle of what their unit holds.
  const double units[4] = {1.5 * power_of_two(exponent + 13), power_of_two(exponent + 13),
                           power_of_two(2 * exponent + 13), 1.5 * power_of_two(2 * exponent - 40)};
  double high[4][kDoubleLanes];
  double low[4][kDoubleLanes] = {};
  for (int s = 0; s < 4; ++s) {
    for (double& lane : high[s]) lane = units[s];
  }
  for (int64_t i = 0; i < padded; i += kDoubleLanes) {
    for (int j = 0; j < kDoubleLanes; ++j) {
      const double v = picked[i + j];
      const double next = high[0][j] + v;
      low[0][j] += v - (next - high[0][j]);
      high[0][j] = next;
      const double magnitude = std::fabs(v);
      const double next_magnitude = high[1][j] + magnitude;
      low[1][j] += magnitude - (next_magnitude - high[1][j]);
      high[1][j] = next_magnitude;
      const double square = v * v;
      const double next_square = high[2][j] + square;
      low[2][j] += square - (next_square - high[2][j]);
      high[2][j] = next_square;
      const double rest = __builtin_fma(v, v, -square);
      const double next_rest = high[3][j] + rest;
      low[3][j] += rest - (next_rest - high[3][j]);
      high[3][j] = next_rest;
    }
  }
  double sums[4][2] = {};
  for (int s = 0; s < 4; ++s) {
    for (int j = 0; j < kDoubleLanes; ++j) {
      sums[s][0] += high[s][j] - units[s];
      sums[s][1] += low[s][j];
    }
  }
  return {{sums[0][0], sums[0][1]},
          {sums[1][0], sums[1][1]},
          {sums[2][0], sums[2][1], sums[3][0], sums[3][1]}};
}

#define PYPARAM_EXACT_KERNELS(name, target)                                                        \
  target uint32_t largest_##name(const float* x, int64_t n, uint32_t limit) {                      \
    return largest_below(x, n, limit);                                                             \
  }                                                                                                \
  target uint64_t largest_of_doubles_##name(const double* x, int64_t n, uint64_t limit) {          \
    return largest_below(x, n, limit);                                                             \
  }                                                                                                \
  target LevelSums level_##name(const float* x, int64_t n, uint32_t from, uint32_t to,             \
                                int exponent) {                                                    \
    return sum_level(x, n, from, to, exponent);                                                    \
  }                                                                                                \
  target LevelSums level_of_doubles_##name(const double* x, int64_t n, uint64_t from, uint64_t to, \
                                           int exponent) {                                         \
    return sum_level(x, n, from, to, exponent);                                                    \
  }

PYPARAM_EXACT_KERNELS(baseline, )
#if defined(__x86_64__)
PYPARAM_EXACT_KERNELS(avx2, PYPARAM_TARGET_AVX2)
PYPARAM_EXACT_KERNELS(avx512, PYPARAM_TARGET_AVX512)
#define PYPARAM_BEST(name) for_best_isa(name##_baseline, name##_avx2, name##_avx512)
#else
#define PYPARAM_BEST(name) name##_baseline
#endif

uint32_t largest(const float* x, int64_t n, uint32_t limit) {
  return PYPARAM_BEST(largest)(x, n, limit);
}
uint64_t largest(const double* x, int64_t n, uint64_t limit) {
  return PYPARAM_BEST(largest_of_doubles)(x, n, limit);
}
LevelSums level(const float* x, int64_t n, uint32_t from, uint32_t to, int exponent) {
  return PYPARAM_BEST(level)(x, n, from, to, exponent);
}
LevelSums level(const double* x, int64_t n, uint64_t from, uint64_t to, int exponent) {
  return PYPARAM_BEST(level_of_doubles)(x, n, from, to, exponent);
}

// Whether squares of a level, and what rounding them leaves, are normal float64 numbers.
bool squares_in_range(float, int) { return true; }
bool squares_in_range(double, int exponent) { return exponent > -450 && exponent < 490; }

// The values whose magnitudes have bits below `end`.
template <typename T>
void add_run(exact::Sums& to, const T* x, int64_t n,
             typename Float<T>::Bits end = Float<T>::kInfinity) {
  using F = Float<T>;
  using Bits = typename F::Bits;
  constexpr int kBias = sizeof(T) == 4 ? 127 : 1023;
  for (Bits most = largest(x, n, end); most != 0; most = largest(x, n, end)) {
    const int biased = std::max(1, static_cast<int>(most >> F::kFraction));
    const int lowest = biased - F::kSpan;
    const Bits from = lowest > 1 ? static_cast<Bits>(lowest) << F::kFraction : 1;
    if (squares_in_range(T(), biased - kBias)) {
      const LevelSums sums = level(x, n, from, end, biased - kBias);
      for (const double part : sums.values) to.values.add(part);
      for (const double part : sums.magnitudes) to.magnitudes.add(part);
      for (const double part : sums.squares) to.squares.add(part);
    } else {
      for (int64_t i = 0; i < n; ++i) {
        const Bits bits = bit_cast<Bits>(x[i]) & F::kMagnitude;
        if (bits >= from && bits < end) to.add(x[i]);
      }
    }
    if (from == 1) return;
    end = from;
  }
}

}  // namespace

namespace {

// A run's exact sums, in the window's units.
void add_run(exact::Window& window, const ExactRun& run, const WindowUnits& units) {
  window.values += static_cast<int64_t>(run.values[0] * units.scales[0]);
  window.magnitudes += static_cast<int64_t>(run.magnitudes[0] * units.scales[1]);
  window.squares += WindowUnits::squares(static_cast<int64_t>(run.squares[0] * units.scales[2]),
                                         static_cast<int64_t>(run.squares[1] * units.scales[3]));
}

template <typename T>
void add_all(exact::Sums& to, exact::Window& window, const ExactRun* runs, const T* x, int64_t n) {
  for (int64_t i = 0; i < n; i += kExactRun, ++runs) {
    if (runs->kind == ExactRun::kUnknown) {
      add_run(to, x + i, std::min(kExactRun, n - i));
      continue;
    }
    if (runs->kind == ExactRun::kParts) {
      for (const double part : runs->values) to.values.add(part);
      for (const double part : runs->magnitudes) to.magnitudes.add(part);
      for (const double part : runs->squares) to.squares.add(part);
      if (runs->below != 0) add_run(to, x + i, std::min(kExactRun, n - i), runs->below);
      continue;
    }
    if (runs->magnitudes[0] == 0) continue;  // as of all runs but the first where bands are summed
    const WindowUnits units(runs->exponent);
    if (!window.empty && window.exponent != units.exponent) {
      to.add(window);
      window = {};
    }
    window.empty = false;
    window.exponent = units.exponent;
    add_run(window, *runs, units);
  }
}

}  // namespace

void add_runs(exact::Sums& to, exact::Window& window, const ExactRun* runs, const float* x,
              int64_t n) {
  add_all(to, window, runs, x, n);
}
void add_runs(exact::Sums& to, exact::Window& window, const ExactRun* runs, const double* x,
              int64_t n) {
  add_all(to, window, runs, x, n);
}

}  // namespace pyparam::cpu
