// Element types and what their bits mean. No torch header: compiles under any C++17 compiler and nvcc.
//
// Every conversion here is exact and none of them calculates with float32 subnormals, so the results do not
// depend on a flush-to-zero mode.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/macros.h"

namespace pyparam {

template <typename To, typename From>
PYPARAM_FORMULA To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps every bit");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

// One binary format smaller than float32. `kind` says what the largest exponent and the sign's zero mean.
enum class Specials {
  kIeee,   // the largest exponent holds infinities and NaNs
  kFn,     // finite and NaN: only an all-ones pattern is a NaN
  kFnuz,   // finite, NaN, unsigned zero: only the pattern of minus zero is a NaN
};

template <typename Storage, int kExponentBits, int kMantissaBits, int kBias, Specials kSpecials>
struct MiniFloat {
  using storage = Storage;
  static constexpr int exponent_bits = kExponentBits;
  static constexpr int mantissa_bits = kMantissaBits;
  static constexpr int bias = kBias;
  static constexpr Specials specials = kSpecials;
  static constexpr uint32_t sign_mask = 1u << (kExponentBits + kMantissaBits);
  static constexpr uint32_t mantissa_mask = (1u << kMantissaBits) - 1;
  static constexpr uint32_t exponent_mask = (1u << kExponentBits) - 1;

  // The float32 of equal value. Every NaN becomes a NaN; the sign of zero is kept.
  static PYPARAM_FORMULA float value(Storage stored) {
    const uint32_t bits = stored;
    const uint32_t sign = (bits & sign_mask) ? 0x80000000u : 0u;
    const uint32_t mantissa = bits & mantissa_mask;
    const uint32_t exponent = (bits >> kMantissaBits) & exponent_mask;
    if (kSpecials == Specials::kFnuz && bits == sign_mask) return bit_cast<float>(0x7fc00000u);
    if (kSpecials == Specials::kFn && (bits & (sign_mask - 1)) == sign_mask - 1) {
      return bit_cast<float>(sign | 0x7fc00000u);
    }
    if (kSpecials == Specials::kIeee && exponent == exponent_mask) {
      return bit_cast<float>(sign | 0x7f800000u | (mantissa << (23 - kMantissaBits)));
    }
    if (exponent == 0) {
      const float unit = bit_cast<float>(static_cast<uint32_t>(127 + 1 - kBias - kMantissaBits) << 23);
      const float magnitude = static_cast<float>(mantissa) * unit;
      return bit_cast<float>(sign | bit_cast<uint32_t>(magnitude));
    }
    return bit_cast<float>(sign | ((exponent + (127 - kBias)) << 23) | (mantissa << (23 - kMantissaBits)));
  }
  // The smallest positive normal value.
  static PYPARAM_FORMULA float smallest_normal() {
    return bit_cast<float>(static_cast<uint32_t>(127 + 1 - kBias) << 23);
  }
};

using Half = MiniFloat<uint16_t, 5, 10, 15, Specials::kIeee>;
using Float8e5m2 = MiniFloat<uint8_t, 5, 2, 15, Specials::kIeee>;
using Float8e5m2fnuz = MiniFloat<uint8_t, 5, 2, 16, Specials::kFnuz>;
using Float8e4m3fn = MiniFloat<uint8_t, 4, 3, 7, Specials::kFn>;
using Float8e4m3fnuz = MiniFloat<uint8_t, 4, 3, 8, Specials::kFnuz>;

// The upper half of a float32.
struct BFloat16 {
  using storage = uint16_t;
  static PYPARAM_FORMULA float value(uint16_t stored) {
    return bit_cast<float>(static_cast<uint32_t>(stored) << 16);
  }
  static PYPARAM_FORMULA float smallest_normal() { return bit_cast<float>(0x00800000u); }
};

// An exponent alone: 2^(stored - 127); no sign, no zero, no infinity, one NaN.
struct Float8e8m0fnu {
  using storage = uint8_t;
  static PYPARAM_FORMULA float value(uint8_t stored) {
    if (stored == 0xff) return bit_cast<float>(0x7fc00000u);
    if (stored == 0) return bit_cast<float>(0x00400000u);
    return bit_cast<float>(static_cast<uint32_t>(stored) << 23);
  }
  static PYPARAM_FORMULA float smallest_normal() { return bit_cast<float>(0x00400000u); }
};

}  // namespace pyparam
