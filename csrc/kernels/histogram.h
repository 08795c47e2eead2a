// Histograms by bits: a value's bin is the top half of its float32, so no range is needed
// beforehand and histograms of shards and steps add up. No torch header.
#pragma once

#include <cstdint>

#include "kernels/dtypes.h"
#include "kernels/macros.h"

namespace pyparam {

// Sign, 8 bits of exponent, 7 bits of mantissa. A bin of normal values is 2^-7 of its lower
// magnitude wide, and holds exactly one value of bfloat16 or of a float8.
constexpr int kBinShift = 16;
constexpr int kBinMantissaBits = 23 - kBinShift;
constexpr int kBins = 1 << 16;
constexpr int kZeroBin = 1 << 15;
constexpr double kBinRelativeWidth = 1.0 / (1 << kBinMantissaBits);

// Bins ascend with the value: [kZeroBin + k] holds magnitude bits >> 16 == k of zeros and
// positives, and [kZeroBin - 1 - k] of negatives. Minus zero is a zero. NaNs have no bin: leave
// them out beforehand.
PYPARAM_FORMULA int bin_of(uint32_t bits) {
  const auto magnitude = static_cast<int>((bits & 0x7fffffffu) >> kBinShift);
  return (bits > 0x80000000u) ? kZeroBin - 1 - magnitude : kZeroBin + magnitude;
}

// The magnitude bits at the bin's edge that is nearest to zero, and just beyond the other.
PYPARAM_FORMULA uint32_t bin_inner_bits(int bin) {
  const int magnitude = bin >= kZeroBin ? bin - kZeroBin : kZeroBin - 1 - bin;
  return static_cast<uint32_t>(magnitude) << kBinShift;
}
PYPARAM_FORMULA double bin_inner(int bin) {
  const double edge = bit_cast<float>(bin_inner_bits(bin));
  return bin >= kZeroBin ? edge : -edge;
}
PYPARAM_FORMULA double bin_outer(int bin) {
  const uint32_t bits = bin_inner_bits(bin) + (1u << kBinShift);
  const double edge = bits >= 0x7f800000u ? 0x1p128 : static_cast<double>(bit_cast<float>(bits));
  return bin >= kZeroBin ? edge : -edge;
}

// Where float32 magnitudes, as bits, change their fate when rounded (to nearest, ties to even) to a
// smaller type:
//   bits < zero_below            becomes zero
//   bits < normal_from           becomes subnormal
//   bits >= overflow_from        becomes infinite, or NaN in a type without infinities
struct RoundingLimits {
  uint32_t zero_below;
  uint32_t normal_from;
  uint32_t overflow_from;
};

// float16, bfloat16, float8_e4m3fn, float8_e5m2, float8_e4m3fnuz, float8_e5m2fnuz; and float32
// itself, for values that were rounded to float32 on the way.
constexpr int kLimitTypes = 7;
constexpr RoundingLimits kRoundingLimits[kLimitTypes] = {
    {0x33000001u, 0x387fe000u, 0x477ff000u},  // 2^-25 | 2^-14 - 2^-25 | 65520
    {0x00008001u, 0x007f8000u,
     0x7f7f8000u},  // 2^-134 | 2^-126 - 2^-134 | between the largest and 2^128
    {0x3a800001u, 0x3c700000u, 0x43e80001u},  // 2^-10 | 2^-6 - 2^-10 | 464
    {0x37000001u, 0x38600000u, 0x47700000u},  // 2^-17 | 2^-14 - 2^-17 | 61440
    {0x3a000001u, 0x3bf00000u, 0x43780000u},  // 2^-11 | 2^-7 - 2^-11 | 248
    {0x36800001u, 0x37e00000u, 0x47700000u},  // 2^-18 | 2^-15 - 2^-18 | 61440
    {0x00000001u, 0x00800000u, 0x7f800000u},
};
constexpr int kLimits = 3 * kLimitTypes;
PYPARAM_FORMULA constexpr uint32_t rounding_limit(int i) {
  const RoundingLimits& limits = kRoundingLimits[i / 3];
  return i % 3 == 0 ? limits.zero_below : i % 3 == 1 ? limits.normal_from : limits.overflow_from;
}

// Whether a limit is the edge of a bin, so that the bins' counts tell how many values lie below it.
// That of float32's overflow is too, but what rounds to an infinity counts in the bin of the
// largest float32.
PYPARAM_FORMULA constexpr bool is_bin_edge(uint32_t limit) {
  return (limit & ((1u << kBinShift) - 1)) == 0 && limit < 0x7f800000u;
}

// Whether a magnitude may lie in a bin that some limit divides: such bins are the first and the
// last of an octave, that of 464, and that of the tiniest. Cheap, and checked below.
PYPARAM_FORMULA constexpr bool may_be_divided(uint32_t magnitude) {
  constexpr uint32_t kWidth = 1u << kBinShift;
  return ((magnitude + kWidth) & 0x7fffffu) < 2 * kWidth ||
         magnitude >> kBinShift == 0x43e80000u >> kBinShift;
}
constexpr bool finds_divided_bins() {
  for (int i = 0; i < kLimits; ++i) {
    const uint32_t limit = rounding_limit(i);
    if ((limit & ((1u << kBinShift) - 1)) == 0) continue;
    if (!may_be_divided(limit - 1) || !may_be_divided(limit)) return false;
  }
  return true;
}
static_assert(finds_divided_bins(), "a limit divides a bin that may_be_divided does not know");

// The value of the order statistic that is number `position` of the `count` in a bin: the bin's
// only value where the source's type has one in each bin, else as if the bin's values were spread
// evenly over it.
PYPARAM_FORMULA double value_in_bin(int bin, double position, double count, bool one_value) {
  const double inner = bin_inner(bin);
  if (one_value || bin == kZeroBin) return inner;
  const double outer = bin_outer(bin);
  const double lower = inner < outer ? inner : outer;
  const double upper = inner < outer ? outer : inner;
  return lower + (upper - lower) * ((position + 0.5) / count);
}

}  // namespace pyparam
