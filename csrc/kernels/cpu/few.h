// Tensors of few values, by the ten thousand. What is done once for each, beside reading it, is
// most of the work then: so rows are rounded eight at a time, from sums that stay within a few
// integers.
#pragma once

#include <cstdint>

#include "kernels/cpu/lanes.h"
#include "kernels/exact.h"

namespace pyparam::cpu {

// Makes the elements of a list known to a loop over them, some before their values are needed,
// whose memory it asks for.
class ElementsAhead {
 public:
  // Those before `end`, which never decreases. False where the loop is to end.
  virtual bool reach(int64_t end) = 0;

 protected:
  ~ElementsAhead() = default;
};

// A list, and the rows of the measure op that are written of it: kValueColumns values and
// kCountColumns counts each.
struct FewTensors {
  const Elements* elements;
  ElementsAhead& ahead;
  double* values;
  int64_t* counts;
};

// What all tensors have together: added to.
struct FewTotals {
  Statistics& found;
  exact::Windows& windows;
  exact::Sums& sums;
};

// 1 / n of all counts of few values, rounded to nearest; 1 of none.
struct Inverses {
  double of[Elements::kFew + 1];

  constexpr Inverses() : of{1} {
    for (int n = 1; n <= Elements::kFew; ++n) of[n] = 1.0 / n;
  }
};
inline constexpr Inverses kInverses;

// LaneKernels::measure_few writes the rows of those tensors in [begin, end) that are `few`. Of some
// it does not: those with an infinity or a NaN, or whose magnitudes span more than one run's sums
// hold. Their indices, counted from `begin`, go to `left`, which has room for all, and how many
// there are is returned; -1 where `ahead` ended it. Needs ExactFloats.
//
// LaneKernels::squares_few writes to sums[begin] to sums[end - 1] those of the squares of tensors
// that are `few` and of float32, and leaves the others.

}  // namespace pyparam::cpu
