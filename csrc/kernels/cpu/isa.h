// Which vector instructions this machine has. A kernel is compiled once for each and chosen at run time.
//
// The body is one PYPARAM_INLINE function, so all compilations do the same arithmetic in the same order; only
// the width of the registers differs.
#pragma once

#if defined(__x86_64__)
#define PYPARAM_TARGET_AVX2 __attribute__((target("avx2")))
#define PYPARAM_TARGET_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))
#else
#define PYPARAM_TARGET_AVX2
#define PYPARAM_TARGET_AVX512
#endif

namespace pyparam::cpu {

enum class Isa { kBaseline, kAvx2, kAvx512 };

// The best of this machine. The environment variable PYPARAM_ISA ("baseline", "avx2", "avx512") lowers it.
Isa isa();

}  // namespace pyparam::cpu
