// The normal distribution cut to an interval, by inversion of its distribution function. Includes
// no torch header; the arithmetic follows the rule of random.h.
//
// With p the probability below a point: the centre inverts p - 1/2, the lower tail p, the upper
// tail 1 - p, each computed for itself, so neither tail loses bits to a number near 1. Where the
// whole interval lies beyond kFarTail deviations, the probabilities are too small for that, and the
// far-tail map inverts their ratios instead: it is right at any distance, where erfinv answers
// infinity.
#pragma once

#include "kernels/random.h"

namespace pyparam::random {

constexpr double kFarTail = 5.0;

// The inverse of the normal distribution function: algorithm AS 241 (Wichura, 1988), PPND7 in float
// (about 7 digits) and PPND16 in double (about 16). `centre` is p - 1/2; `tail` is p or 1 - p, the
// smaller, in (0, 1/2]. One quotient of polynomials, whose coefficients the region selects.
PYPARAM_FORMULA float normal_quantile(float centre, float tail) {
  const float distance = centre < 0.0f ? -centre : centre;
  const bool central = distance <= 0.425f;
  const float root = square_root(-natural_log(tail));
  const bool near = root <= 5.0f;
  const float r = central ? 0.180625f - centre * centre : (near ? root - 1.6f : root - 5.0f);
  const float n0 = central ? 3.3871327179f : (near ? 1.4234372777f : 6.6579051150f);
  const float n1 = central ? 50.434271938f : (near ? 2.7568153900f : 3.0812263860f);
  const float n2 = central ? 159.29113202f : (near ? 1.3067284816f : 0.42868294337f);
  const float n3 = central ? 59.109374720f : (near ? 0.17023821103f : 0.017337203997f);
  const float d1 = central ? 17.895169469f : (near ? 0.73700164250f : 0.24197894225f);
  const float d2 = central ? 78.757757664f : (near ? 0.12021132975f : 0.012258202635f);
  const float d3 = central ? 67.187563600f : 0.0f;
  const float magnitude =
      (((n3 * r + n2) * r + n1) * r + n0) / (((d3 * r + d2) * r + d1) * r + 1.0f);
  return central ? centre * magnitude : (centre < 0.0f ? -magnitude : magnitude);
}

PYPARAM_FORMULA double normal_quantile(double centre, double tail) {
  const double distance = centre < 0.0 ? -centre : centre;
  const bool central = distance <= 0.425;
  const double root = square_root(-natural_log(tail));
  const bool near = root <= 5.0;
  const double r = central ? 0.180625 - centre * centre : (near ? root - 1.6 : root - 5.0);
#define PYPARAM_BY_REGION(c, n, f) (central ? (c) : (near ? (n) : (f)))
  double n = PYPARAM_BY_REGION(2.5090809287301226727e3, 7.7454501427834140764e-4,
                               2.01033439929228813265e-7);
  n = n * r + PYPARAM_BY_REGION(3.3430575583588128105e4, 2.27238449892691845833e-2,
                                2.71155556874348757815e-5);
  n = n * r + PYPARAM_BY_REGION(6.7265770927008700853e4, 2.41780725177450611770e-1,
                                1.24266094738807843860e-3);
  n = n * r +
      PYPARAM_BY_REGION(4.5921953931549871457e4, 1.27045825245236838258, 2.65321895265761230930e-2);
  n = n * r +
      PYPARAM_BY_REGION(1.3731693765509461125e4, 3.64784832476320460504, 2.96560571828504891230e-1);
  n = n * r +
      PYPARAM_BY_REGION(1.9715909503065514427e3, 5.76949722146069140550, 1.78482653991729133580);
  n = n * r +
      PYPARAM_BY_REGION(1.3314166789178437745e2, 4.63033784615654529590, 5.46378491116411436990);
  n = n * r +
      PYPARAM_BY_REGION(3.3871328727963666080, 1.42343711074968357734, 6.65790464350110377720);
  double d = PYPARAM_BY_REGION(5.2264952788528545610e3, 1.05075007164441684324e-9,
                               2.04426310338993978564e-15);
  d = d * r + PYPARAM_BY_REGION(2.8729085735721942674e4, 5.47593808499534494600e-4,
                                1.42151175831644588870e-7);
  d = d * r + PYPARAM_BY_REGION(3.9307895800092710610e4, 1.51986665636164571966e-2,
                                1.84631831751005468180e-5);
  d = d * r + PYPARAM_BY_REGION(2.1213794301586595867e4, 1.48103976427480074590e-1,
                                7.86869131145613259100e-4);
  d = d * r + PYPARAM_BY_REGION(5.3941960214247511077e3, 6.89767334985100004550e-1,
                                1.48753612908506148525e-2);
  d = d * r +
      PYPARAM_BY_REGION(6.8718700749205790830e2, 1.67638483018380384940, 1.36929880922735805310e-1);
  d = d * r +
      PYPARAM_BY_REGION(4.2313330701600911252e1, 2.05319162663775882187, 5.99832206555887937690e-1);
#undef PYPARAM_BY_REGION
  d = d * r + 1.0;
  const double magnitude = n / d;
  return central ? centre * magnitude : (centre < 0.0 ? -magnitude : magnitude);
}

// A cut normal, ready to draw from.
template <typename Real>
struct Truncation {
  Real mean, deviation;
  Real lowest, highest;  // what may come out
  Real centre;           // P(below the interval) - 1/2
  Real below, above;     // P(below the interval), P(above it)
  Real inside;           // P(in it)
};

template <typename Real>
PYPARAM_FORMULA Real clamped(Real x, Real lowest, Real highest) {
  const Real y = x < lowest ? lowest : x;
  return y > highest ? highest : y;
}

// u is how far into the interval's probability, v = 1 - u.
template <typename Real>
PYPARAM_FORMULA Real truncated_normal(const Truncation<Real>& t, Real u, Real v) {
  const Real centre = t.centre + u * t.inside;
  const Real tail = centre < Real(0) ? t.below + u * t.inside : t.above + v * t.inside;
  return clamped(normal_quantile(centre, tail) * t.deviation + t.mean, t.lowest, t.highest);
}

// Mills' ratio Q(x) / phi(x) for x >= kFarTail, to 1e-15: the 26th convergent of Laplace's
// continued fraction 1 / (x + 1 / (x + 2 / (x + ...))). All terms are positive. Beyond 1e8 it is 1
// / x to the last bit.
PYPARAM_FORMULA double mills_ratio(double x) {
  const bool distant = x > 1e8;
  const double y = distant ? 1e8 : x;
  double last_top = 0.0, top = 1.0, last_bottom = 1.0, bottom = y;
  PYPARAM_UNROLL_LANES(26)
  for (int k = 1; k <= 26; ++k) {
    const double next_top = y * top + static_cast<double>(k) * last_top;
    const double next_bottom = y * bottom + static_cast<double>(k) * last_bottom;
    last_top = top;
    last_bottom = bottom;
    top = next_top;
    bottom = next_bottom;
  }
  return (distant ? 1.0 : top) / (distant ? x : bottom);
}

// An interval beyond kFarTail deviations. Draws are its near bound plus step * distance.
struct FarTail {
  double bound, step;  // the near bound; the deviation, signed away from it
  double lowest, highest;
  double start;        // the near bound in deviations, > 0
  double start_mills;  // mills_ratio(start)
  double inside;       // P(in the interval | beyond its near bound)
};

// Solves log Q(start + d) - log Q(start) = log(1 - u inside) for d: exact for exp(-x^2 / 2), then
// Newton's method on the slowly varying rest, whose three steps reach 1e-14 from kFarTail on.
PYPARAM_FORMULA double far_tail_normal(const FarTail& t, double u) {
  const double lost = -(u * t.inside);
  const double kept = 1.0 + lost;
  const double smallest = kept < 0x1p-60 ? 0x1p-60 : kept;
  const double log_kept = kept == 1.0 ? lost : natural_log(smallest) * (lost / (smallest - 1.0));
  double d = -2.0 * log_kept / (square_root(t.start * t.start - 2.0 * log_kept) + t.start);
  PYPARAM_UNROLL_LANES(3)
  for (int k = 0; k < 3; ++k) {
    const double mills = mills_ratio(t.start + d);
    const double wrong = natural_log(mills / t.start_mills) - log_kept - d * (t.start + 0.5 * d);
    d = d + wrong * mills;
  }
  return clamped(t.bound + t.step * d, t.lowest, t.highest);
}

}  // namespace pyparam::random
