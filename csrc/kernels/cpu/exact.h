// Exact sums of runs of values, at the speed of vectors.
#pragma once

#include <cstdint>

#include "kernels/exact.h"

namespace pyparam::cpu {

// Adds the finite ones of n values. Needs ExactFloats.
void add_exactly(exact::Sums& to, const float* x, int64_t n);
void add_exactly(exact::Sums& to, const double* x, int64_t n);

}  // namespace pyparam::cpu
