// The columns of what the measure op returns, one row a tensor and a last one for all of them
// together. No torch header.
#pragma once

#include <cstdint>

#include "kernels/math.h"

namespace pyparam {

// float64. The last three are for merging: the sum of squares about the mean, what rounding the
// mean left out, and the exponent that both are scaled by (values * 2^-exponent), 0 unless values
// are outside of about 1e-90 .. 1e135.
enum ValueColumn {
  kMin,
  kMax,
  kMean,
  kStd,
  kRms,
  kL1,
  kL2,
  kMaxAbs,
  kM2,
  kMeanLow,
  kExponent,
  kValueColumns
};
// int64. `finite` counts finite values, of which a complex element has two.
enum CountColumn {
  kNumel,
  kBytes,
  kZeros,
  kNans,
  kPosInfs,
  kNegInfs,
  kSubnormals,
  kFinite,
  kCountColumns
};

// What no sum goes into: extremes and counts.
PYPARAM_HD inline void write_unsummed(const Statistics& s, int64_t numel, int64_t nbytes,
                                      double* values, int64_t* counts) {
  // Of zeros, whose order is not that of their signs, the positive one.
  values[kMin] = min_of(s) + 0.0;
  values[kMax] = max_of(s) + 0.0;
  values[kMaxAbs] = max_abs_of(s) + 0.0;
  counts[kNumel] = numel;
  counts[kBytes] = nbytes;
  counts[kZeros] = s.zeros;
  counts[kNans] = s.nans;
  counts[kPosInfs] = s.posinfs;
  counts[kNegInfs] = s.neginfs;
  counts[kSubnormals] = s.subnormals;
  counts[kFinite] = s.finite;
}

PYPARAM_HD inline void write_row(const Statistics& s, int64_t numel, int64_t nbytes, double* values,
                                 int64_t* counts) {
  write_unsummed(s, numel, nbytes, values, counts);
  values[kMean] = mean_of(s);
  values[kStd] = std_of(s);
  values[kRms] = rms_of(s);
  values[kL1] = l1_of(s);
  values[kL2] = l2_of(s);
  values[kM2] = s.m2;
  values[kMeanLow] = s.mean_low;
  values[kExponent] = static_cast<double>(s.exponent);
}

PYPARAM_HD inline Statistics read_unsummed(const double* values, const int64_t* counts) {
  Statistics s;
  s.finite = counts[kFinite];
  s.zeros = counts[kZeros];
  s.nans = counts[kNans];
  s.posinfs = counts[kPosInfs];
  s.neginfs = counts[kNegInfs];
  s.subnormals = counts[kSubnormals];
  if (s.finite == 0) return s;
  s.min = values[kMin];
  s.max = values[kMax];
  return s;
}

PYPARAM_HD inline Statistics read_row(const double* values, const int64_t* counts) {
  Statistics s = read_unsummed(values, counts);
  if (s.finite == 0) return s;
  s.exponent = static_cast<int64_t>(values[kExponent]);
  s.mean = unscale(values[kMean], -s.exponent);
  s.l1 = unscale(values[kL1], -s.exponent);
  s.m2 = values[kM2];
  s.mean_low = values[kMeanLow];
  return s;
}

}  // namespace pyparam
