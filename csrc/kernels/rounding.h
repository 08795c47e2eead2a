// Quotients and roots of sums that are known to more bits than a float64 has, rounded once: several
// at a time, which a processor divides, or takes the root of, in the time of one. No torch header.
#pragma once

#include <cmath>

#include "kernels/macros.h"

namespace pyparam::exact {

// Numbers high + low: high is the nearest float64, low what it leaves.
template <int kCount>
struct Pairs {
  double high[kCount], low[kCount];
};

// The numbers over counts, of which the inverses are given.
template <int kCount>
PYPARAM_INLINE Pairs<kCount> over(const Pairs<kCount>& p, const double (&n)[kCount],
                                  const double (&inverse)[kCount]) {
  Pairs<kCount> out;
  for (int i = 0; i < kCount; ++i) {
    const double first = p.high[i] / n[i];
    const double rest = (__builtin_fma(-first, n[i], p.high[i]) + p.low[i]) * inverse[i];
    out.high[i] = first + rest;
    out.low[i] = (first - out.high[i]) + rest;
  }
  return out;
}

// Their square roots.
template <int kCount>
PYPARAM_INLINE void roots(const Pairs<kCount>& p, double (&out)[kCount]) {
  for (int i = 0; i < kCount; ++i) {
    const double first = std::sqrt(p.high[i]);
    const double correction = (__builtin_fma(-first, first, p.high[i]) + p.low[i]) / (2 * first);
    out[i] = first + correction;
  }
  for (int i = 0; i < kCount; ++i) out[i] = p.high[i] == 0 ? 0 : out[i];
}

}  // namespace pyparam::exact
