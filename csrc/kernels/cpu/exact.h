// Exact sums of runs of values, at the speed of vectors.
#pragma once

#include <cstdint>

#include "kernels/cpu/lanes.h"
#include "kernels/exact.h"

namespace pyparam::cpu {

// Adds what measuring a block found of its n values x, the sums of its runs, where they are
// known, else the finite ones of their values. What a window holds goes to the
// window as long as it is of one exponent, which goes to `to` when it is not. Needs ExactFloats, as
// all here do.
void add_runs(exact::Sums& to, exact::Window& window, const ExactRun* runs, const float* x,
              int64_t n);
void add_runs(exact::Sums& to, exact::Window& window, const ExactRun* runs, const double* x,
              int64_t n);

}  // namespace pyparam::cpu
