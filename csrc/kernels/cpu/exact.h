// Exact sums of runs of values, at the speed of vectors.
#pragma once

#include <cstdint>

#include "kernels/cpu/lanes.h"
#include "kernels/exact.h"

namespace pyparam::cpu {

// Adds the finite ones of n values. Needs ExactFloats, as all here do.
void add_exactly(exact::Sums& to, const double* x, int64_t n);

// Adds what measuring a block found of its n values x: the sums of its runs, where they are exact.
void add_runs(exact::Sums& to, const ExactRun* runs, const float* x, int64_t n);

// The exponent, with its bias, of the largest finite magnitude of some values.
int largest_exponent(const float* x, int64_t n);

}  // namespace pyparam::cpu
