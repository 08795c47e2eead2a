// Two tables compared: entries matched by name, and what the matched tensors differ by.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "table/param_table.h"

namespace pyparam {

// Which entries belong together: those of one name. Positions in the two tables, in the order of a.
struct Matching {
  std::vector<int64_t> in_a;
  std::vector<int64_t> in_b;
  std::vector<int64_t> missing;     // positions in a of names that b lacks
  std::vector<int64_t> unexpected;  // positions in b of names that a lacks, in the order of b
};

// Raises c10::ValueError if a table has a name twice.
Matching match(const ParamTable& a, const ParamTable& b);

struct TableComparison {
  // Of each pair of equal shapes, in the order of a:
  std::vector<int64_t> in_a;
  std::vector<int64_t> in_b;
  at::Tensor values;                // float64 [pairs, 5]
  at::Tensor counts;                // int64 [pairs, 4]
  at::Tensor sizes;                 // int64: the shapes one after the other
  at::Tensor ends;                  // int64 [pairs]: where each shape ends in `sizes`
  std::vector<int64_t> retyped;     // pairs whose element types differ
  // Of pairs of other shapes:
  std::vector<int64_t> reshaped_a;
  std::vector<int64_t> reshaped_b;
};

// Divides the matched entries by shape and runs the op on those of equal shapes. Needs no GIL.
TableComparison compare_matched(const ParamTable& a, const ParamTable& b, const Matching& matching);

}  // namespace pyparam
