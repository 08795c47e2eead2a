// The formulas of norms over many tensors, and of clipping by them. No torch header.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/macros.h"
#include "kernels/math.h"

namespace pyparam {

// scale * (sum of powers)^(1/p). The scale is 1 unless the powers would leave float64's range. For
// orders 0 and 1 the sum alone counts, and for the infinite orders it is the extreme.
struct NormPart {
  double sum = 0;
  double scale = 1;
};

PYPARAM_HD inline NormPart combine_norms(const NormPart& a, const NormPart& b, double p) {
  if (p == infinity()) return {is_nan(a.sum) || a.sum >= b.sum ? a.sum : b.sum};
  if (p == -infinity()) return {is_nan(a.sum) || a.sum <= b.sum ? a.sum : b.sum};
  // An infinity or a NaN stays whatever it is scaled by.
  if (is_nan(a.sum) || is_nan(b.sum)) return {not_a_number()};
  if (a.sum == infinity() || b.sum == infinity()) return {infinity()};
  if (b.sum == 0) return a;
  if (a.sum == 0) return b;
  if (a.scale == b.scale) return {a.sum + b.sum, a.scale};
  const NormPart& large = a.scale > b.scale ? a : b;
  const NormPart& small = a.scale > b.scale ? b : a;
  return {large.sum + small.sum * pow(small.scale / large.scale, p), large.scale};
}

PYPARAM_HD inline double norm_of(const NormPart& part, double p) {
  if (p == 0 || p == 1 || p == infinity() || p == -infinity()) return part.sum;
  if (part.sum == 0 || !is_finite(part.sum)) return part.sum;
  return part.scale * (p == 2 ? sqrt(part.sum) : pow(part.sum, 1 / p));
}

// What the norm of no chunks is: that of no tensors, or of empty ones.
PYPARAM_FORMULA double norm_of_nothing(double p, bool any_tensor) {
  return p == -infinity() && any_tensor ? infinity() : 0;
}

// A sum of squares of float64 values that neither overflowed nor lost small squares.
PYPARAM_FORMULA bool is_safe_square(double sum) {
  return sum > power_of_two(-600) && sum < infinity();
}

// max_norm / (norm + 1e-6), at most 1, in the norm's dtype and in the steps PyTorch takes.
template <typename T>
PYPARAM_FORMULA double clip_coefficient(double norm, double max_norm) {
  const T reciprocal = T(1) / (static_cast<T>(norm) + static_cast<T>(1e-6));
  const T coefficient = reciprocal * static_cast<T>(max_norm);
  return coefficient > T(1) ? T(1) : coefficient;
}

}  // namespace pyparam
