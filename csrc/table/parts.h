// Parts of tensors: what a rank can say of its own, and what comes of it when ranks have added up.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>
#include <vector>

#include "kernels/cpu/measure.h"
#include "kernels/cpu/part_hash.h"
#include "table/exact_table.h"
#include "table/layouts.h"
#include "table/param_table.h"

namespace pyparam {

// How a whole is cut, for all tensors that are cut alike.
struct Cut {
  cpu::Block block;              // this rank's
  int64_t dim = -1;              // the innermost dimension that is cut; -1 where none is
  std::vector<int64_t> borders;  // where pieces begin along it
};

// The statistics of local tensors, and their exact sums.
struct PartStatistics {
  Measured measured;
  ExactTable sums;
};
PartStatistics measure_parts(const ParamTable& locals, bool histogram);

// Sums of the fingerprint over each local tensor (int64 [rows, 2]); of the words that several ranks
// have a piece of, the local pieces, all rows' one after the other, and how many each row has.
std::tuple<at::Tensor, at::Tensor, at::Tensor> hash_parts(const ParamTable& locals,
                                                          const std::vector<Cut>& cuts,
                                                          const std::vector<int64_t>& cut_of);
// The digests (int64 [rows, 2]) of the wholes, from sums and pieces that ranks have added up.
at::Tensor digests_of_parts(const ParamTable& locals, const std::vector<Cut>& cuts,
                            const std::vector<int64_t>& cut_of, const at::Tensor& sums,
                            const at::Tensor& pieces);

}  // namespace pyparam
