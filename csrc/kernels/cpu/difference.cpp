#include "kernels/cpu/difference.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/cpu/isa.h"

#define PYPARAM_NAMESPACE difference_baseline
#define PYPARAM_TARGET
#define PYPARAM_VECTOR_BYTES 16
#include "kernels/cpu/difference_target.h"
#undef PYPARAM_NAMESPACE
#undef PYPARAM_TARGET
#undef PYPARAM_VECTOR_BYTES

#if defined(__x86_64__)

#define PYPARAM_NAMESPACE difference_avx2
#define PYPARAM_TARGET PYPARAM_TARGET_AVX2
#define PYPARAM_VECTOR_BYTES 32
#include "kernels/cpu/difference_target.h"
#undef PYPARAM_NAMESPACE
#undef PYPARAM_TARGET
#undef PYPARAM_VECTOR_BYTES

#define PYPARAM_NAMESPACE difference_avx512
#define PYPARAM_TARGET PYPARAM_TARGET_AVX512
#define PYPARAM_VECTOR_BYTES 64
#include "kernels/cpu/difference_target.h"
#undef PYPARAM_NAMESPACE
#undef PYPARAM_TARGET
#undef PYPARAM_VECTOR_BYTES

#endif

namespace pyparam::cpu {

const DifferenceKernels& difference_kernels() {
#if defined(__x86_64__)
  return for_best_isa(difference_baseline::kernels, difference_avx2::kernels,
                      difference_avx512::kernels);
#else
  return difference_baseline::kernels;
#endif
}

}  // namespace pyparam::cpu
