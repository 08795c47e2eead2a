// What lets one header serve a plain C++ compiler and nvcc.
#pragma once

#if defined(__CUDACC__) || defined(__HIPCC__)
#define PYPARAM_HD __host__ __device__
#define PYPARAM_INLINE __forceinline__
#define PYPARAM_UNROLL(n) PYPARAM_PRAGMA(unroll n)
// Unrolled for vectors of a CPU; on a device a long body costs registers and gains nothing.
#define PYPARAM_UNROLL_LANES(n) PYPARAM_PRAGMA(unroll 1)
#else
#define PYPARAM_HD
// Inlined into callers that are compiled for AVX2 or AVX-512, and so compiled for them too.
#define PYPARAM_INLINE inline __attribute__((always_inline))
#define PYPARAM_UNROLL(n) PYPARAM_PRAGMA(GCC unroll n)
#define PYPARAM_UNROLL_LANES(n) PYPARAM_UNROLL(n)
#endif
#define PYPARAM_PRAGMA(words) _Pragma(#words)

// A formula of the shared headers: on host and device, inlined everywhere.
#define PYPARAM_FORMULA PYPARAM_HD PYPARAM_INLINE
