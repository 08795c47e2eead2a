// Maps from Philox words to numbers: uniform, normal. Includes no torch header.
//
// Only + - * / sqrt and integer operations occur, each correctly rounded by IEEE 754, and the build
// contracts no product and sum into one rounding (-ffp-contract=off, nvcc --fmad=false). So every
// machine and every instruction set gives the same bits. Functions are branch-free, for the sake of
// SIMD.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/macros.h"

namespace pyparam::random {

template <typename To, typename From>
PYPARAM_FORMULA To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// Correctly rounded, on the device too.
#if defined(__CUDA_ARCH__)
PYPARAM_FORMULA float square_root(float x) { return __fsqrt_rn(x); }
PYPARAM_FORMULA double square_root(double x) { return __dsqrt_rn(x); }
#else
PYPARAM_FORMULA float square_root(float x) { return __builtin_sqrtf(x); }
PYPARAM_FORMULA double square_root(double x) { return __builtin_sqrt(x); }
#endif

// ---- words to the unit interval
// -------------------------------------------------------------------------

// Multiples of 2^-24 in [0, 1): the top 24 bits.
PYPARAM_FORMULA float unit_closed_open(uint32_t word) {
  return static_cast<float>(static_cast<int32_t>(word >> 8)) * 0x1p-24f;
}

// Multiples of 2^-53 in [0, 1): the top 53 bits of high:low. The two halves are exact and so is
// their sum.
PYPARAM_FORMULA double unit_closed_open(uint32_t low, uint32_t high) {
  const auto top = static_cast<int32_t>(high >> 6);
  const auto rest = static_cast<int32_t>(((high & 63u) << 21) | (low >> 11));
  return static_cast<double>(top) * 0x1p-26 + static_cast<double>(rest) * 0x1p-53;
}

// (word + 1/2) / 2^32 rounded once: in [2^-33, 1], fine near 0, which makes the tails of what is
// drawn.
PYPARAM_FORMULA float unit_open_closed(uint32_t word) {
  const auto high = static_cast<float>(static_cast<int32_t>(word >> 16));
  const auto low = static_cast<float>(static_cast<int32_t>(word & 0xFFFFu));
  return (high * 65536.0f + (low + 0.5f)) * 0x1p-32f;
}

// (top 53 bits + 1/2) / 2^53 rounded once: in [2^-54, 1].
PYPARAM_FORMULA double unit_open_closed(uint32_t low, uint32_t high) {
  const auto top = static_cast<int32_t>(high >> 6);
  const auto rest = static_cast<int32_t>(((high & 63u) << 21) | (low >> 11));
  return static_cast<double>(top) * 0x1p-26 + (static_cast<double>(rest) + 0.5) * 0x1p-53;
}

// ---- elementary functions
// -------------------------------------------------------------------------------

// log((1 + f) 2^e) for 1 + f in [sqrt(1/2), sqrt(2)), within 1 ulp: the polynomial of Cephes logf.
PYPARAM_FORMULA float log_of_parts(float f, float e) {
  const float z = f * f;
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  float y = f * z * p;
  y = y + e * -2.12194440e-4f;
  y = y - 0.5f * z;
  return (f + y) + e * 0.693359375f;
}

// The same within 1 ulp in double: the method and coefficients of FDLIBM e_log.c.
PYPARAM_FORMULA double log_of_parts(double f, double e) {
  const double s = f / (2.0 + f);
  const double z = s * s;
  double r = 1.479819860511658591e-01;
  r = r * z + 1.531383769920937332e-01;
  r = r * z + 1.818357216161805012e-01;
  r = r * z + 2.222219843214978396e-01;
  r = r * z + 2.857142874366239149e-01;
  r = r * z + 3.999999999940941908e-01;
  r = r * z + 6.666666666666735130e-01;
  r = r * z;
  const double half_square = 0.5 * f * f;
  return e * 6.93147180369123816490e-01 -
         ((half_square - (s * (half_square + r) + e * 1.90821492927058770002e-10)) - f);
}

// A positive normal number as (1 + f) 2^e, exactly.
template <typename Real>
struct Parts {
  Real f, e;
};

PYPARAM_FORMULA Parts<float> parts_of(float x) {
  const uint32_t shifted = bits_as<uint32_t>(x) + (0x3F800000u - 0x3F3504F3u);
  const float mantissa = bits_as<float>((shifted & 0x007FFFFFu) + 0x3F3504F3u);
  return {mantissa - 1.0f, static_cast<float>(static_cast<int32_t>(shifted >> 23) - 127)};
}

PYPARAM_FORMULA Parts<double> parts_of(double x) {
  const uint64_t shifted = bits_as<uint64_t>(x) + (0x3FF0000000000000ull - 0x3FE6A09E667F3BCDull);
  const double mantissa =
      bits_as<double>((shifted & 0x000FFFFFFFFFFFFFull) + 0x3FE6A09E667F3BCDull);
  // The biased exponent as a double, by its bits: AVX2 converts no 64-bit integers.
  return {mantissa - 1.0,
          bits_as<double>((shifted >> 52) | 0x4330000000000000ull) - (0x1p52 + 1023.0)};
}

// log(x) for a positive normal x.
template <typename Real>
PYPARAM_FORMULA Real natural_log(Real x) {
  const Parts<Real> parts = parts_of(x);
  return log_of_parts(parts.f, parts.e);
}

// log(u) for u in (0, 1] whose complement v = 1 - u is known for itself, so that no bit is lost
// where u is near 1.
template <typename Real>
PYPARAM_FORMULA Real log_of_unit(Real u, Real v) {
  const Parts<Real> parts = parts_of(u);
  return log_of_parts(parts.e == Real(0) ? -v : parts.f, parts.e);
}

// Cosine and sine of 2 pi times a fraction of a turn. `quarter` counts quarter turns; the rest is
// `angle`, in radians in [-pi/4, pi/4], where the polynomials of Cephes (float) and FDLIBM (double)
// hold within 1 ulp.
template <typename Real>
struct Direction {
  Real cosine, sine;
};

template <typename Real, typename Bits>
PYPARAM_FORMULA Direction<Real> turned(Real cosine, Real sine, Bits quarter, int sign_shift) {
  const bool swap = (quarter & 1u) != 0;
  const Real c = swap ? sine : cosine;
  const Real s = swap ? cosine : sine;
  const Bits c_sign = (((quarter + 1u) >> 1) & 1u) << sign_shift;
  const Bits s_sign = ((quarter >> 1) & 1u) << sign_shift;
  return {bits_as<Real>(bits_as<Bits>(c) ^ c_sign), bits_as<Real>(bits_as<Bits>(s) ^ s_sign)};
}

PYPARAM_FORMULA Direction<float> direction(uint32_t word) {
  const uint32_t quarter = (word + 0x20000000u) >> 30;
  const auto rest = static_cast<int32_t>(word - (quarter << 30));
  const float x = static_cast<float>(rest) * 1.46291807926715968105e-9f;  // 2 pi / 2^32
  const float z = x * x;
  const float sine =
      ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * x + x;
  const float cosine =
      ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * (z * z) -
      0.5f * z + 1.0f;
  return turned<float, uint32_t>(cosine, sine, quarter, 31);
}

PYPARAM_FORMULA Direction<double> direction(uint32_t low, uint32_t high) {
  const uint32_t quarter = (high + 0x20000000u) >> 30;
  const auto rest = static_cast<int32_t>(high - (quarter << 30));
  const double turns = static_cast<double>(rest) * 0x1p-32 +
                       static_cast<double>(static_cast<int32_t>(low >> 11)) * 0x1p-53;
  const double x = turns * 6.283185307179586477;
  const double z = x * x;
  double s = 1.58969099521155010221e-10;
  s = s * z - 2.50507602534068634195e-08;
  s = s * z + 2.75573137070700676789e-06;
  s = s * z - 1.98412698298579493134e-04;
  s = s * z + 8.33333333332248946124e-03;
  s = s * z - 1.66666666666666324348e-01;
  double c = -1.13596475577881948265e-11;
  c = c * z + 2.08757232129817482790e-09;
  c = c * z - 2.75573143513906633035e-07;
  c = c * z + 2.48015872894767294178e-05;
  c = c * z - 1.38888888888741095749e-03;
  c = c * z + 4.16666666666666019037e-02;
  return turned<double, uint64_t>(c * (z * z) - 0.5 * z + 1.0, s * z * x + x, quarter, 63);
}

// ---- normal
// ---------------------------------------------------------------------------------------------

// Two independent standard normals by Box and Muller: .cosine is the even element, .sine the odd
// one. |z| is at most 6.77 in float (a radius of 32 bits) and 8.66 in double (53 bits).
PYPARAM_FORMULA Direction<float> normal_pair(uint32_t word0, uint32_t word1) {
  const float radius =
      square_root(-2.0f * log_of_unit(unit_open_closed(word0), unit_open_closed(~word0)));
  const Direction<float> d = direction(word1);
  return {radius * d.cosine, radius * d.sine};
}

PYPARAM_FORMULA Direction<double> normal_pair(uint32_t word0, uint32_t word1, uint32_t word2,
                                              uint32_t word3) {
  const double radius = square_root(
      -2.0 * log_of_unit(unit_open_closed(word0, word1), unit_open_closed(~word0, ~word1)));
  const Direction<double> d = direction(word2, word3);
  return {radius * d.cosine, radius * d.sine};
}

// ---- rounding to 16 bits
// --------------------------------------------------------------------------------

// To nearest, ties to even. The values drawn are finite.
PYPARAM_FORMULA uint16_t to_bfloat16(float x) {
  const uint32_t bits = bits_as<uint32_t>(x);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

PYPARAM_FORMULA uint16_t to_float16(float x) {
  const uint32_t bits = bits_as<uint32_t>(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  // Below 2^-14 the half is subnormal: adding 0.5 makes the float's own addition round to its last
  // bit.
  const uint32_t subnormal = bits_as<uint32_t>(bits_as<float>(magnitude) + 0.5f) - 0x3F000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  return static_cast<uint16_t>((magnitude >= 0x477FF000u ? 0x7C00u : finite) | sign);
}

}  // namespace pyparam::random
