// Products of 64 bits with AVX2, which multiplies 32.
#pragma once

#if defined(__x86_64__)

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/macros.h"

namespace pyparam::cpu {

PYPARAM_TARGET_AVX2 PYPARAM_INLINE __m256i four_of(uint64_t word) {
  return _mm256_set1_epi64x(static_cast<int64_t>(word));
}

// The product of each lane modulo 2^64. That of both upper halves lies beyond. Those of an upper
// half with a lower one, of which the lower bits alone count, come of one instruction for both; the
// compiler takes two, and moves the upper half first. Six operations on an EPYC, of which two
// multiply; of the compiler's seven it is three.
PYPARAM_TARGET_AVX2 PYPARAM_INLINE __m256i multiply(__m256i x, uint64_t factor) {
  const __m256i crossed = _mm256_mullo_epi32(x, four_of(factor >> 32 | factor << 32));
  const __m256i upper = _mm256_add_epi32(_mm256_slli_epi64(crossed, 32),
                                         _mm256_and_si256(crossed, four_of(~uint64_t{0} << 32)));
  return _mm256_add_epi64(_mm256_mul_epu32(x, four_of(factor)), upper);
}

}  // namespace pyparam::cpu

#endif
