// Exact sums of runs of values, at the speed of vectors.
#pragma once

#include <cstdint>

#include "kernels/cpu/lanes.h"
#include "kernels/exact.h"

namespace pyparam::cpu {

// Adds the finite ones of n values. Needs ExactFloats, as all here do.
void add_exactly(exact::Sums& to, const double* x, int64_t n);

// Adds what measuring a block found of its n values x: the sums of its runs, where they are exact.
// They go to the window as long as they are of one exponent, which goes to `to` when they are not.
void add_runs(exact::Sums& to, exact::Window& window, const ExactRun* runs, const float* x,
              int64_t n);

}  // namespace pyparam::cpu
