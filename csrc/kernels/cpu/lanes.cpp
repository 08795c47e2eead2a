#include "kernels/cpu/lanes.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/cpu/ahead.h"
#include "kernels/cpu/exact.h"
#include "kernels/cpu/few.h"
#include "kernels/cpu/isa.h"
#include "kernels/histogram.h"
#include "kernels/rounding.h"

#define PYPARAM_NAMESPACE baseline
#define PYPARAM_TARGET
#define PYPARAM_VECTOR_BYTES 16
#include "kernels/cpu/lanes_target.h"
#undef PYPARAM_NAMESPACE
#undef PYPARAM_TARGET
#undef PYPARAM_VECTOR_BYTES

#if defined(__x86_64__)

#define PYPARAM_NAMESPACE avx2
#define PYPARAM_TARGET PYPARAM_TARGET_AVX2
#define PYPARAM_VECTOR_BYTES 32
#include "kernels/cpu/lanes_target.h"
#undef PYPARAM_NAMESPACE
#undef PYPARAM_TARGET
#undef PYPARAM_VECTOR_BYTES

#define PYPARAM_NAMESPACE avx512
#define PYPARAM_TARGET PYPARAM_TARGET_AVX512
#define PYPARAM_VECTOR_BYTES 64
#include "kernels/cpu/lanes_target.h"
#undef PYPARAM_NAMESPACE
#undef PYPARAM_TARGET
#undef PYPARAM_VECTOR_BYTES

// Of the last what gains by multiplying 52 bits, or by adding products up.
#define PYPARAM_NAMESPACE icelake
#define PYPARAM_TARGET PYPARAM_TARGET_ICELAKE
#define PYPARAM_VECTOR_BYTES 64
#define PYPARAM_MULTIPLIES_52_BITS
#define PYPARAM_ADDS_PRODUCTS
#include "kernels/cpu/lanes_target.h"
#undef PYPARAM_NAMESPACE
#undef PYPARAM_TARGET
#undef PYPARAM_VECTOR_BYTES
#undef PYPARAM_MULTIPLIES_52_BITS
#undef PYPARAM_ADDS_PRODUCTS

namespace pyparam::cpu::icelake {
static constexpr LaneKernels kernels = [] {
  LaneKernels some = avx512::kernels;
  some.measure_float = measure_float;
  some.measure_half = measure_half;
  some.measure_bfloat16 = measure_bfloat16;
  some.measure_double = measure_double;
  some.widen = widen;
  some.narrow = narrow;
  return some;
}();
}  // namespace pyparam::cpu::icelake

#endif

namespace pyparam::cpu {

float smallest_normal(Format format) {
  switch (format) {
    case Format::kHalf:
      return Half::smallest_normal();
    case Format::kFloat8e5m2:
      return Float8e5m2::smallest_normal();
    case Format::kFloat8e4m3fn:
      return Float8e4m3fn::smallest_normal();
    case Format::kFloat8e5m2fnuz:
      return Float8e5m2fnuz::smallest_normal();
    case Format::kFloat8e4m3fnuz:
      return Float8e4m3fnuz::smallest_normal();
    case Format::kFloat8e8m0fnu:
      return Float8e8m0fnu::smallest_normal();
    default:
      return std::numeric_limits<float>::min();
  }
}

const LaneKernels& lane_kernels() {
#if defined(__x86_64__)
  return for_best_isa(baseline::kernels, avx2::kernels, avx512::kernels, icelake::kernels);
#else
  return baseline::kernels;
#endif
}

}  // namespace pyparam::cpu
