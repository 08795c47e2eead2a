// Element types and what their bits mean. No torch header: compiles under any C++17 compiler and
// nvcc.
//
// Every conversion here is exact and none of them calculates with float32 subnormals, so the
// results do not depend on a flush-to-zero mode.
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

// which ? yes : no, as masks: a compiler may not turn it back into a branch around a float
// operation.
PYPARAM_FORMULA uint32_t select(bool which, uint32_t yes, uint32_t no) {
  const uint32_t mask = 0u - static_cast<uint32_t>(which);
  return (yes & mask) | (no & ~mask);
}

// One binary format smaller than float32. `kind` says what the largest exponent and the sign's zero
// mean.
enum class Specials {
  kIeee,  // the largest exponent holds infinities and NaNs
  kFn,    // finite and NaN: only an all-ones pattern is a NaN
  kFnuz,  // finite, NaN, unsigned zero: only the pattern of minus zero is a NaN
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

  // The float32 of equal value. Every NaN becomes a NaN; the sign of zero is kept. No branches, so
  // that a compiler can do many at a time.
  static PYPARAM_FORMULA float value(Storage stored) {
    const uint32_t bits = stored;
    const uint32_t magnitude = bits & (sign_mask - 1);
    const uint32_t unit = static_cast<uint32_t>(127 + 1 - kBias - kMantissaBits) << 23;
    const float small =
        static_cast<float>(static_cast<int32_t>(magnitude & mantissa_mask)) * bit_cast<float>(unit);
    const uint32_t normal =
        (magnitude << (23 - kMantissaBits)) + (static_cast<uint32_t>(127 - kBias) << 23);
    uint32_t result = select(magnitude <= mantissa_mask, bit_cast<uint32_t>(small), normal);
    if (kSpecials == Specials::kIeee) {
      const uint32_t special = 0x7f800000u | ((magnitude & mantissa_mask) << (23 - kMantissaBits));
      result = select(magnitude >= (exponent_mask << kMantissaBits), special, result);
    }
    if (kSpecials == Specials::kFn)
      result = select(magnitude == sign_mask - 1, 0x7fc00000u, result);
    if (kSpecials == Specials::kFnuz) result = select(bits == sign_mask, 0x7fc00000u, result);
    return bit_cast<float>(result | ((bits & sign_mask) << (31 - kExponentBits - kMantissaBits)));
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
  static constexpr int mantissa_bits = 7;
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
