// The formulas of comparing: what two runs of values differ by, and how partial results combine. No
// torch header.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/dtypes.h"
#include "kernels/macros.h"
#include "kernels/math.h"

namespace pyparam {

// value * 2^exponent: a sum whose terms may lie outside of float64's range, as squares of 1e200 do.
// The exponent is 0 for all ordinary values, and even for a sum of squares.
struct Scaled {
  double value = 0;
  int64_t exponent = 0;
};

// value * 2^shift, also where 2^shift is no float64.
PYPARAM_FORMULA double shifted(double value, int64_t shift) {
  if (shift == 0) return value;
  while (shift > 1000) {
    value *= power_of_two(1000);
    shift -= 1000;
  }
  while (shift < -1000) {
    value *= power_of_two(-1000);
    shift += 1000;
  }
  return value * power_of_two(static_cast<int>(shift));
}

PYPARAM_FORMULA Scaled operator+(const Scaled& a, const Scaled& b) {
  if (a.exponent == b.exponent) return {a.value + b.value, a.exponent};
  if (a.value == 0) return b;
  if (b.value == 0) return a;
  if (a.exponent < b.exponent)
    return {shifted(a.value, a.exponent - b.exponent) + b.value, b.exponent};
  return {a.value + shifted(b.value, b.exponent - a.exponent), a.exponent};
}

// What two runs of equal length differ by. Sums and max_abs are over the pairs of which both are
// finite; a pair with an infinity or a NaN either agrees in its bits, or counts as `nonfinite`. A
// complex number is two values.
struct Difference {
  static constexpr int64_t kNone = INT64_MAX;

  Scaled sum_abs;  // of |a - b|
  Scaled squares;  // of |a - b|^2
  Scaled squares_a;
  Scaled squares_b;
  Scaled product;  // of a * b
  double max_abs = 0;
  int64_t finite = 0;     // pairs of values that the sums are over
  int64_t differing = 0;  // elements
  int64_t nonfinite = 0;  // pairs of values
  int64_t first = kNone;  // the first differing element
};

PYPARAM_FORMULA Difference combine(const Difference& a, const Difference& b) {
  Difference out;
  out.sum_abs = a.sum_abs + b.sum_abs;
  out.squares = a.squares + b.squares;
  out.squares_a = a.squares_a + b.squares_a;
  out.squares_b = a.squares_b + b.squares_b;
  out.product = a.product + b.product;
  out.max_abs = b.max_abs > a.max_abs ? b.max_abs : a.max_abs;
  out.finite = a.finite + b.finite;
  out.differing = a.differing + b.differing;
  out.nonfinite = a.nonfinite + b.nonfinite;
  out.first = a.first < b.first ? a.first : b.first;
  return out;
}

// What a person reads. Of no finite pair at all, differences are 0 and the cosine is 1.
PYPARAM_FORMULA double mean_abs_of(const Difference& d) {
  return d.finite == 0
             ? 0
             : shifted(d.sum_abs.value / static_cast<double>(d.finite), d.sum_abs.exponent);
}
PYPARAM_FORMULA double l2_of(const Difference& d) {
  return shifted(sqrt(d.squares.value), d.squares.exponent / 2);
}
// ||a - b|| / ||a||: 0 where both are zero, infinite where a alone is.
PYPARAM_FORMULA double rel_l2_of(const Difference& d) {
  if (d.squares.value == 0) return 0;
  if (d.squares_a.value == 0) return infinity();
  return shifted(sqrt(d.squares.value) / sqrt(d.squares_a.value),
                 (d.squares.exponent - d.squares_a.exponent) / 2);
}
// a . b / (||a|| ||b||), in [-1, 1]: 1 for equal values, also zeros; 0 where one side alone is
// zero.
PYPARAM_FORMULA double cosine_of(const Difference& d) {
  if (d.squares.value == 0) return 1;
  if (d.squares_a.value == 0 || d.squares_b.value == 0) return 0;
  // The square root of the ratio is exactly 1 for equal norms, such as those of a and -a.
  const double cosine =
      d.product.value / d.squares_a.value * sqrt(d.squares_a.value / d.squares_b.value);
  const double out =
      shifted(cosine, d.product.exponent - (d.squares_a.exponent + d.squares_b.exponent) / 2);
  return out > 1 ? 1 : (out < -1 ? -1 : out);
}

// Whether the square of a value up to this, and sums of such squares, stay well inside float64's
// range.
PYPARAM_FORMULA bool is_ordinary(double magnitude) { return scaling_exponent(magnitude) == 0; }
// The same of a sum of squares, which no ordinary values make as small or large as those it
// refuses. False for infinities and NaNs, and for zero, which may be an underflow.
PYPARAM_FORMULA bool is_ordinary_square(double squares) {
  return squares > power_of_two(-601) && squares < power_of_two(940);
}

// |a - b| of 64-bit integers, exact before it is rounded to float64 once.
PYPARAM_FORMULA double distance(int64_t a, int64_t b) {
  const auto x = static_cast<uint64_t>(a);
  const auto y = static_cast<uint64_t>(b);
  return static_cast<double>(a > b ? x - y : y - x);
}
PYPARAM_FORMULA double distance(uint64_t a, uint64_t b) {
  return static_cast<double>(a > b ? a - b : b - a);
}

}  // namespace pyparam
