// Marks for code shared by the host and CUDA. Includes nothing.
#pragma once

#if defined(__CUDACC__)
#define PYPARAM_HD __host__ __device__
#else
#define PYPARAM_HD
#endif
