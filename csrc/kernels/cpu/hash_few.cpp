#include "kernels/cpu/hash_few.h"

#include <cstring>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/multiply.h"

// Words are those of hash_few's loops, not of another kernel's.
#define PYPARAM_NAMESPACE hash_baseline
#define PYPARAM_TARGET
#define PYPARAM_VECTOR_BYTES 16
#include "kernels/cpu/hash_few_target.h"
#undef PYPARAM_NAMESPACE
#undef PYPARAM_TARGET
#undef PYPARAM_VECTOR_BYTES

#if defined(__x86_64__)

#define PYPARAM_NAMESPACE hash_avx2
#define PYPARAM_TARGET PYPARAM_TARGET_AVX2
#define PYPARAM_VECTOR_BYTES 32
#include "kernels/cpu/hash_few_target.h"
#undef PYPARAM_NAMESPACE
#undef PYPARAM_TARGET
#undef PYPARAM_VECTOR_BYTES

#define PYPARAM_NAMESPACE hash_avx512
#define PYPARAM_TARGET PYPARAM_TARGET_AVX512
#define PYPARAM_VECTOR_BYTES 64
#include "kernels/cpu/hash_few_target.h"
#undef PYPARAM_NAMESPACE
#undef PYPARAM_TARGET
#undef PYPARAM_VECTOR_BYTES

#endif

namespace pyparam::cpu {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are read as little-endian");
static_assert(sizeof(hash::Sums) == 16 && sizeof(hash::Digest) == 16, "read as pairs of words");

const HashKernels& hash_kernels() {
#if defined(__x86_64__)
  return for_best_isa(hash_baseline::kernels, hash_avx2::kernels, hash_avx512::kernels);
#else
  return hash_baseline::kernels;
#endif
}

hash::Digest sum_entries(const hash::Digest* digests, const hash::Sums* names, int64_t count) {
  return hash_kernels().sum_entries(digests, names, count);
}

}  // namespace pyparam::cpu
