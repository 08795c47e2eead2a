// The loops of lanes.h for one target. lanes.cpp includes this file once for each, with
// PYPARAM_NAMESPACE, PYPARAM_TARGET (the function attribute) and PYPARAM_VECTOR_BYTES defined, so
// there is no include guard. Each part below needs those before it.
#include "kernels/cpu/lanes_vectors_target.h"

#include "kernels/cpu/lanes_widen_target.h"

#include "kernels/cpu/lanes_measure_target.h"

#include "kernels/cpu/lanes_read_target.h"

#include "kernels/cpu/lanes_windows_target.h"

#include "kernels/cpu/lanes_sums_target.h"

#include "kernels/cpu/lanes_bands_target.h"

#include "kernels/cpu/lanes_exact_target.h"

#if !defined(PYPARAM_MULTIPLIES_52_BITS)

#include "kernels/cpu/lanes_counts_target.h"

#include "kernels/cpu/lanes_few_target.h"

namespace pyparam::cpu::PYPARAM_NAMESPACE {

static constexpr LaneKernels kernels = {
    measure_float,  measure_half,    measure_bfloat16, measure_double, measure_few,
    squares_few,    widen,           narrow,           count_below,    magnitude_range,
    count_bins,     squares_float,   squares_double,   sum_abs_float,  sum_abs_double,
    extremes_float, extremes_double,
};

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE

#endif
