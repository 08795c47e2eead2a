// Two tables compared: entries matched by name, and what the matched tensors differ by.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "table/match.h"
#include "table/param_table.h"

namespace pyparam {

struct TableComparison {
  // Of each pair of equal shapes, in the order of a:
  std::vector<int64_t> in_a;
  std::vector<int64_t> in_b;
  at::Tensor values;             // float64 [pairs, 5]
  at::Tensor counts;             // int64 [pairs, 4]
  at::Tensor sizes;              // int64: the shapes one after the other
  at::Tensor ends;               // int64 [pairs]: where each shape ends in `sizes`
  std::vector<int64_t> retyped;  // pairs whose element types differ
  // Of pairs of other shapes:
  std::vector<int64_t> reshaped_a;
  std::vector<int64_t> reshaped_b;
};

// Divides the matched entries by shape and runs the op on those of equal shapes. With release_a or
// release_b, what was read of mapped files on that side is dropped. Needs no GIL.
TableComparison compare_matched(const ParamTable& a, const ParamTable& b, const Matching& matching,
                                bool release_a, bool release_b);

}  // namespace pyparam
