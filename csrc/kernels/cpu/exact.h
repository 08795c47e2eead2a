// Exact sums of runs of values, at the speed of vectors.
#pragma once

#include <cstdint>

#include "kernels/cpu/lanes.h"
#include "kernels/exact.h"

namespace pyparam::cpu {

// What the sums of a run are multiplied by to be integers in units of its window. Squares come as
// multiples of 2^(2 exponent - 39), the exponent being that of the run's largest value, and what
// that leaves.
struct WindowUnits {
  // How many powers of two the last bit of any value of a run lies below the largest value's own.
  static constexpr int kLowest = kExactSpan + 23;
  static_assert(kLowest + 1 == exact::Window::kBits);
  static constexpr int kHigh = 39;
  static constexpr int kRest = 2 * kLowest - kHigh;

  int exponent;      // of the window
  double scales[4];  // of values, of magnitudes, of the high and of the low part of squares

  // The run's exponent has its bias.
  PYPARAM_INLINE explicit WindowUnits(int biased) : exponent(biased - 127 - kLowest) {
    const double scale = power_of_two(-exponent);
    scales[0] = scales[1] = scale;
    scales[2] = power_of_two(kHigh - 2 * (biased - 127));
    scales[3] = scale * scale;
  }
  PYPARAM_INLINE static __int128 squares(int64_t high, int64_t low) {
    return (static_cast<__int128>(high) << kRest) + low;
  }
};

// Adds what measuring a block found of its n values x, the sums of its runs, where they are
// known, else the finite ones of their values. What a window holds goes to the
// window as long as it is of one exponent, which goes to `to` when it is not. Needs ExactFloats, as
// all here do.
void add_runs(exact::Sums& to, exact::Window& window, const ExactRun* runs, const float* x,
              int64_t n);
void add_runs(exact::Sums& to, exact::Window& window, const ExactRun* runs, const double* x,
              int64_t n);

}  // namespace pyparam::cpu
