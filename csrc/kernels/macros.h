// Marks for code shared by the host and CUDA. Includes nothing.
#pragma once

#if defined(__CUDACC__)
#define PYPARAM_HD __host__ __device__
#define PYPARAM_UNROLL(n) _Pragma("unroll")
#else
#define PYPARAM_HD
#define PYPARAM_UNROLL(n) PYPARAM_PRAGMA(GCC unroll n)
#define PYPARAM_PRAGMA(words) _Pragma(#words)
#endif
