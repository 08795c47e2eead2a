// Probabilities of the normal distribution, for the few numbers a truncated normal is prepared
// from. Host only, slow, and free of the C library's exp and erf, whose last bits differ between
// machines.
#pragma once

#include <cmath>

#include "kernels/truncated.h"

namespace pyparam::random {

// The sum of x^n / n! from n = `from` on, for |x| <= 1/2.
inline double exponential_series(double x, int from) {
  double sum = 0.0;
  for (int n = 18; n >= 1; --n) sum = (n < from ? 0.0 : 1.0) + sum * x / (n + 1);
  return from == 0 ? 1.0 + sum * x : sum * x;
}

// exp(x), for x <= 0.
inline double exponential(double x) {
  if (x < -745.0) return 0.0;
  const double k = std::floor(x * 1.4426950408889634 + 0.5);
  const double r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
  return std::ldexp(exponential_series(r, 0), static_cast<int>(k));
}

// 1 - exp(x), for x <= 0, without cancellation.
inline double one_minus_exponential(double x) {
  return x > -0.5 ? -exponential_series(x, 1) : 1.0 - exponential(x);
}

inline double normal_density(double x) {
  return 0.39894228040143267794 * exponential(-0.5 * x * x);
}

// P(0 < Z < x) for 0 <= x < 3: phi(x) (x + x^3/3 + x^5/15 + ...), all terms positive.
inline double central_probability(double x) {
  double term = x, sum = x;
  for (int n = 3; n < 200; n += 2) {
    term = term * (x * x) / n;
    sum = sum + term;
  }
  return normal_density(x) * sum;
}

// P(Z > x).
inline double upper_probability(double x) {
  if (x < 0.0) return 1.0 - upper_probability(-x);
  if (x < 3.0) return 0.5 - central_probability(x);
  if (x > 39.0) return 0.0;
  double f = x;
  for (int k = 200; k > 0; --k) f = x + k / f;
  return normal_density(x) / f;
}

// P(Z < x) - 1/2.
inline double centred_probability(double x) {
  if (x < 0.0) return -centred_probability(-x);
  return x < 3.0 ? central_probability(x) : 0.5 - upper_probability(x);
}

// Of a normal cut to [alpha, beta] deviations: P(alpha < Z < beta).
inline double interval_probability(double alpha, double beta) {
  if (alpha >= 0.0) return upper_probability(alpha) - upper_probability(beta);
  if (beta <= 0.0) return upper_probability(-beta) - upper_probability(-alpha);
  return centred_probability(beta) - centred_probability(alpha);
}

// 1 - Q(end) / Q(start) for kFarTail <= start <= end.
inline double far_tail_share(double start, double end) {
  if (std::isinf(end)) return 1.0;
  const double width = end - start;
  const double ratio = mills_ratio(end) / mills_ratio(start);
  return one_minus_exponential(natural_log(ratio) - width * (start + 0.5 * width));
}

}  // namespace pyparam::random
