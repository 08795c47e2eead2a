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

// a over a count below 2^50, whose nearest inverse is given: as a division rounds it, which takes a
// machine longer than all that is done with it here.
//
// `near` is within two units in the last place of the quotient, so what it leaves of a is exact,
// and what that adds is off by 2^-52 units at the most. The quotient of a float64 by a count lies
// at least 2^-51 units from the middle of two float64 values, beyond which it would be rounded
// otherwise: never on it, since a would have more than 53 bits then (Markstein 1990).
PYPARAM_INLINE double quotient(double a, double count, double inverse) {
  const double near = a * inverse;
  return __builtin_fma(__builtin_fma(-near, count, a), inverse, near);
}

// The numbers over counts, of which the inverses are given. With kMultiplies, which gives the same,
// nothing is divided: for machines that multiply and add at once.
template <bool kMultiplies, int kCount>
PYPARAM_INLINE Pairs<kCount> over(const Pairs<kCount>& p, const double (&n)[kCount],
                                  const double (&inverse)[kCount]) {
  Pairs<kCount> out;
  for (int i = 0; i < kCount; ++i) {
    const double first = kMultiplies ? quotient(p.high[i], n[i], inverse[i]) : p.high[i] / n[i];
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
