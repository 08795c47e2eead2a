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
  // The nearest stored value, ties to even; a value beyond the largest becomes an infinity, where
  // the format has one, else a NaN. Every NaN becomes the format's own, which keeps the sign.
  static PYPARAM_FORMULA Storage stored(float x) {
    const uint32_t bits = bit_cast<uint32_t>(x);
    const uint32_t sign = (bits >> (31 - kExponentBits - kMantissaBits)) & sign_mask;
    const uint32_t magnitude = bits & 0x7fffffffu;
    // A subnormal: this number's last bit is the format's, so the float's own addition rounds.
    const uint32_t unit = static_cast<uint32_t>(127 - kBias + 23 - kMantissaBits + 1) << 23;
    const uint32_t subnormal =
        bit_cast<uint32_t>(bit_cast<float>(magnitude) + bit_cast<float>(unit)) - unit;
    const uint32_t odd = (magnitude >> (23 - kMantissaBits)) & 1u;
    const uint32_t normal = (magnitude - (static_cast<uint32_t>(127 - kBias) << 23) +
                             ((1u << (22 - kMantissaBits)) - 1) + odd) >>
                            (23 - kMantissaBits);
    uint32_t result =
        select(magnitude < (static_cast<uint32_t>(127 + 1 - kBias) << 23), subnormal, normal);
    if (kSpecials == Specials::kFnuz) {
      const bool beyond =
          magnitude >= (static_cast<uint32_t>(127 - kBias + 1 + exponent_mask) << 23);
      result = select(beyond, sign_mask, select(result == 0, 0u, result | sign));
      return static_cast<Storage>(result);
    }
    // The pattern of the largest exponent without a mantissa, and of a NaN.
    const uint32_t infinite = exponent_mask << kMantissaBits;
    const uint32_t nan = kSpecials == Specials::kIeee && kMantissaBits > 2
                             ? infinite | (1u << (kMantissaBits - 1))
                             : sign_mask - 1;
    if (kSpecials == Specials::kIeee) {
      const bool beyond = magnitude >= (static_cast<uint32_t>(127 - kBias + exponent_mask) << 23);
      result = select(beyond, infinite, result);
    } else {
      // Half a step beyond the largest value and more.
      result = select(magnitude >= (static_cast<uint32_t>(127 - kBias + exponent_mask) << 23) +
                                       (mantissa_mask << (23 - kMantissaBits)),
                      nan, result);
    }
    result = select(magnitude > 0x7f800000u, nan, result);
    return static_cast<Storage>(result | sign);
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
  // To nearest, ties to even; every NaN becomes one.
  static PYPARAM_FORMULA uint16_t stored(float x) {
    const uint32_t bits = bit_cast<uint32_t>(x);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return static_cast<uint16_t>(select((bits & 0x7fffffffu) > 0x7f800000u, 0x7fc0u, rounded));
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
  // The nearest power of two, ties upwards but for 3 * 2^-128; the sign is lost, infinity is a NaN.
  static PYPARAM_FORMULA uint8_t stored(float x) {
    const uint32_t bits = bit_cast<uint32_t>(x);
    const uint32_t exponent = (bits >> 23) & 0xffu;
    if (exponent == 0xff) return 0xff;
    const bool half = (bits & 0x400000u) != 0;
    const bool more = (bits & 0x3fffffu) != 0 || exponent > 0;
    return static_cast<uint8_t>(exponent + static_cast<uint32_t>(half && more));
  }
  static PYPARAM_FORMULA float smallest_normal() { return bit_cast<float>(0x00400000u); }
};

}  // namespace pyparam
