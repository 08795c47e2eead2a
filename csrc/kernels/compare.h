// The columns of what the compare op returns, one row a pair.
#pragma once

#include <cstdint>

#include "kernels/difference.h"

namespace pyparam {

enum DifferenceValue {
  kMaxAbsDifference,
  kMeanAbsDifference,
  kL2Difference,
  kRelL2,
  kCosine,
  kDifferenceValues
};
enum DifferenceCount {
  kPairNumel,
  kDiffering,
  kNonfinitePairs,
  kFirstDiffering,
  kDifferenceCounts
};

PYPARAM_HD inline void write_difference(const Difference& d, int64_t numel, double* values,
                                        int64_t* counts) {
  values[kMaxAbsDifference] = d.max_abs;
  values[kMeanAbsDifference] = mean_abs_of(d);
  values[kL2Difference] = l2_of(d);
  values[kRelL2] = rel_l2_of(d);
  values[kCosine] = cosine_of(d);
  counts[kPairNumel] = numel;
  counts[kDiffering] = d.differing;
  counts[kNonfinitePairs] = d.nonfinite;
  counts[kFirstDiffering] = d.first == Difference::kNone ? -1 : d.first;
}

}  // namespace pyparam
