// What parts of tensors differ by, as sums that ranks can add up.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

#include "table/exact_table.h"

namespace pyparam::cpu {

enum ExactDifference { kSumAbs, kSquares, kSquaresA, kSquaresB, kProduct, kExactDifferences };
enum PartCount { kPartFinite, kPartDiffering, kPartNonfinite, kPartFirst, kPartCounts };

// Pairs of tensors of one shape in this machine's memory: the sums, counts (int64 [rows,
// kPartCounts]; the first differing element counts from the local tensor's first) and largest
// differences (float64 [rows]).
std::tuple<ExactTable, at::Tensor, at::Tensor> compare_parts(at::TensorList a, at::TensorList b);

// The columns of the compare op of such sums, counts and largest differences; numel: int64 [rows].
std::tuple<at::Tensor, at::Tensor> differences_of(const ExactTable& sums, const at::Tensor& counts,
                                                  const at::Tensor& largest,
                                                  const at::Tensor& numel);

}  // namespace pyparam::cpu
