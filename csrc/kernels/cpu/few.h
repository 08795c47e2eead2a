// Tensors of few values, by the ten thousand. What is done once for each, beside reading it, is
// most of the work then: so rows are rounded eight at a time, from sums that stay within a few
// integers.
#pragma once

#include <cstdint>

#include "kernels/cpu/lanes.h"
#include "kernels/exact.h"

namespace pyparam::cpu {

// A list, and the rows of the measure op that are written of it: kValueColumns values and
// kCountColumns counts each.
struct FewTensors {
  const Elements* elements;
  int64_t size;
  double* values;
  int64_t* counts;
};

// What all tensors have together: added to.
struct FewTotals {
  Statistics& found;
  exact::Windows& windows;
  exact::Sums& sums;
};

// LaneKernels::measure_few writes the rows of those tensors in [begin, end) that are `few`. Of some
// it does not: those with an infinity or a NaN, or whose magnitudes span more than one run's sums
// hold. Their indices go to `left`, which has room for all, and how many there are is returned.
// Needs ExactFloats.

}  // namespace pyparam::cpu
