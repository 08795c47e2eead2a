// The formulas of measuring: what one value is, and how partial results combine. No torch header:
// compiles under any C++17 compiler and nvcc, and is the only place where these formulas stand.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/dtypes.h"
#include "kernels/macros.h"

namespace pyparam {

// Classes of a float by its magnitude bits (bits without the sign).
PYPARAM_FORMULA uint32_t magnitude_bits(float x) { return bit_cast<uint32_t>(x) & 0x7fffffffu; }
PYPARAM_FORMULA uint64_t magnitude_bits(double x) {
  return bit_cast<uint64_t>(x) & 0x7fffffffffffffffull;
}
PYPARAM_FORMULA bool is_finite(float x) { return magnitude_bits(x) < 0x7f800000u; }
PYPARAM_FORMULA bool is_finite(double x) { return magnitude_bits(x) < 0x7ff0000000000000ull; }
PYPARAM_FORMULA bool is_nan(float x) { return magnitude_bits(x) > 0x7f800000u; }
PYPARAM_FORMULA bool is_nan(double x) { return magnitude_bits(x) > 0x7ff0000000000000ull; }

PYPARAM_FORMULA double infinity() { return bit_cast<double>(static_cast<uint64_t>(0x7ff) << 52); }
PYPARAM_FORMULA double not_a_number() {
  return bit_cast<double>(static_cast<uint64_t>(0x7ff8) << 48);
}
// 2^exponent, for exponent in [-1022, 1023].
PYPARAM_FORMULA double power_of_two(int exponent) {
  return bit_cast<double>(static_cast<uint64_t>(exponent + 1023) << 52);
}

// Statistics of a run of values. Counts are over all values, extremes and moments over the finite
// ones.
//
// The moments are those of x * 2^-exponent. The exponent is 0 unless squares of the values would
// leave float64's range, which only float64 values can make them do.
struct Statistics {
  int64_t finite = 0;
  int64_t zeros = 0;
  int64_t subnormals = 0;
  int64_t nans = 0;
  int64_t posinfs = 0;
  int64_t neginfs = 0;
  double min = bit_cast<double>(0x7ff0000000000000ull);
  double max = bit_cast<double>(0xfff0000000000000ull);
  double mean = 0;  // of the finite values, rounded
  double mean_low =
      0;          // and what the rounding left out, which matters where parts differ in it alone
  double m2 = 0;  // sum of (x - mean)^2
  double l1 = 0;  // sum of |x|
  int64_t exponent = 0;
};

// The exponent in [-1000, 1000] for which squares and sums of values up to max_abs stay in range;
// 0 almost always.
PYPARAM_FORMULA int64_t scaling_exponent(double max_abs) {
  const auto exponent = static_cast<int64_t>(magnitude_bits(max_abs) >> 52) - 1023;
  const bool ordinary = (exponent >= -300 && exponent <= 450) || max_abs == 0;
  return ordinary ? 0 : (exponent < -1000 ? -1000 : (exponent > 1000 ? 1000 : exponent));
}

// The moments restated for another exponent.
PYPARAM_FORMULA void rescale(Statistics& s, int64_t exponent) {
  // In two steps each, since the shift may pass the range of one power of two.
  const auto shift = static_cast<int>(s.exponent - exponent);
  const double a = power_of_two(shift / 2);
  const double b = power_of_two(shift - shift / 2);
  s.mean = s.mean * a * b;
  s.mean_low = s.mean_low * a * b;
  s.l1 = s.l1 * a * b;
  s.m2 = s.m2 * a * b * a * b;
  s.exponent = exponent;
}

// Sets the mean to a + b, in two parts (Knuth's two-sum, exact).
PYPARAM_FORMULA void set_mean(Statistics& s, double a, double b) {
  const double sum = a + b;
  const double b_part = sum - a;
  s.mean = sum;
  s.mean_low = (a - (sum - b_part)) + (b - b_part);
}

// What both runs have together but moments: counts and extremes.
PYPARAM_FORMULA Statistics joined(const Statistics& a, const Statistics& b) {
  Statistics out;
  out.finite = a.finite + b.finite;
  out.zeros = a.zeros + b.zeros;
  out.subnormals = a.subnormals + b.subnormals;
  out.nans = a.nans + b.nans;
  out.posinfs = a.posinfs + b.posinfs;
  out.neginfs = a.neginfs + b.neginfs;
  out.min = b.min < a.min ? b.min : a.min;
  out.max = b.max > a.max ? b.max : a.max;
  return out;
}

// The statistics of both runs together (Chan, Golub and LeVeque 1979 for mean and m2).
PYPARAM_FORMULA Statistics combine(Statistics a, Statistics b) {
  if (a.exponent != b.exponent) {
    const bool a_is_zero = a.finite == 0 || (a.min == 0 && a.max == 0);
    const bool b_is_zero = b.finite == 0 || (b.min == 0 && b.max == 0);
    int64_t common = a.exponent > b.exponent ? a.exponent : b.exponent;
    if (a_is_zero) common = b.exponent;
    if (b_is_zero) common = a.exponent;
    rescale(a, common);
    rescale(b, common);
  }
  Statistics out = joined(a, b);
  out.exponent = a.exponent;
  out.l1 = a.l1 + b.l1;
  if (a.finite == 0 || b.finite == 0) {
    out.mean = a.finite == 0 ? b.mean : a.mean;
    out.mean_low = a.finite == 0 ? b.mean_low : a.mean_low;
    out.m2 = a.finite == 0 ? b.m2 : a.m2;
    return out;
  }
  const auto weight_b = static_cast<double>(b.finite) / static_cast<double>(out.finite);
  const double delta = (b.mean - a.mean) + (b.mean_low - a.mean_low);
  set_mean(out, a.mean, delta * weight_b + a.mean_low);
  out.m2 = a.m2 + b.m2 + delta * delta * (static_cast<double>(a.finite) * weight_b);
  return out;
}

// The moments of a run of `finite` values from sums shifted by some value: of (x - shift) and (x -
// shift)^2. The subtraction below loses about log2(1 + (shift - mean)^2 / variance) bits: none with
// a shift near the mean, and log2(finite) bits at most with one of the values as the shift.
PYPARAM_FORMULA void set_moments(Statistics& s, double shift, double sum, double squares) {
  if (s.finite == 0) return;
  const double mean = sum / static_cast<double>(s.finite);
  const double m2 = squares - mean * sum;
  set_mean(s, shift, mean);
  s.m2 = m2 > 0 ? m2 : 0;
}

// value * 2^exponent, for exponents in [-1000, 1000].
PYPARAM_FORMULA double unscale(double value, int64_t exponent) {
  if (exponent == 0) return value;
  const auto half = static_cast<int>(exponent / 2);
  return value * power_of_two(half) * power_of_two(static_cast<int>(exponent) - half);
}

// What a person reads, from the partial results. NaN where there is no finite value.
PYPARAM_FORMULA double mean_of(const Statistics& s) {
  return s.finite == 0 ? not_a_number() : unscale(s.mean, s.exponent);
}
// With Bessel's correction, as torch.std: NaN for fewer than two values.
PYPARAM_FORMULA double std_of(const Statistics& s) {
  if (s.finite < 2) return not_a_number();
  return unscale(sqrt(s.m2 / static_cast<double>(s.finite - 1)), s.exponent);
}
// Sums of squares from the centred moment: no subtraction, so nothing cancels.
PYPARAM_FORMULA double l2_of(const Statistics& s) {
  return unscale(sqrt(s.m2 + static_cast<double>(s.finite) * s.mean * s.mean), s.exponent);
}
PYPARAM_FORMULA double rms_of(const Statistics& s) {
  if (s.finite == 0) return not_a_number();
  return unscale(sqrt(s.m2 / static_cast<double>(s.finite) + s.mean * s.mean), s.exponent);
}
PYPARAM_FORMULA double l1_of(const Statistics& s) { return unscale(s.l1, s.exponent); }
PYPARAM_FORMULA double min_of(const Statistics& s) {
  return s.finite == 0 ? not_a_number() : s.min;
}
PYPARAM_FORMULA double max_of(const Statistics& s) {
  return s.finite == 0 ? not_a_number() : s.max;
}
PYPARAM_FORMULA double max_abs_of(const Statistics& s) {
  if (s.finite == 0) return not_a_number();
  return -s.min > s.max ? -s.min : s.max;
}

}  // namespace pyparam
