#include "kernels/cpu/part_compare.h"

#include <ATen/ops/empty.h>

#include <vector>

#include "kernels/chunks.h"
#include "kernels/compare.h"
#include "kernels/cpu/compare.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/pair.h"
#include "kernels/cpu/parallel.h"

namespace pyparam::cpu {

std::tuple<ExactTable, at::Tensor, at::Tensor> compare_parts(at::TensorList a, at::TensorList b) {
  const ExactFloats mode;
  const auto rows = static_cast<int64_t>(a.size());
  const ChunkPlan plan = plan_comparison(a, b);
  const std::vector<Difference> partial = compare_chunks(a, b, plan, false, false);
  ExactTable sums(rows, kExactDifferences);
  at::Tensor counts = at::empty({rows, kPartCounts}, at::TensorOptions().dtype(at::kLong));
  at::Tensor largest = at::empty({rows}, at::TensorOptions().dtype(at::kDouble));
  exact::Accumulator sum;
  for (int64_t row = 0; row < rows; ++row) {
    Difference all;
    for (int64_t c = plan.first[row]; c < plan.first[row + 1]; ++c) all = combine(all, partial[c]);
    const Scaled* parts[] = {&all.sum_abs, &all.squares, &all.squares_a, &all.squares_b,
                             &all.product};
    for (int64_t column = 0; column < kExactDifferences; ++column) {
      sum.clear();
      sum.add(parts[column]->value, static_cast<int>(parts[column]->exponent));
      sums.at(row, column) = sum.number();
    }
    int64_t* c = counts.mutable_data_ptr<int64_t>() + row * kPartCounts;
    c[kPartFinite] = all.finite;
    c[kPartDiffering] = all.differing;
    c[kPartNonfinite] = all.nonfinite;
    c[kPartFirst] = all.first;
    largest.mutable_data_ptr<double>()[row] = all.max_abs;
  }
  return {std::move(sums), counts, largest};
}

std::tuple<at::Tensor, at::Tensor> differences_of(const ExactTable& sums, const at::Tensor& counts,
                                                  const at::Tensor& largest,
                                                  const at::Tensor& numel) {
  const ExactFloats mode;
  const int64_t rows = sums.rows();
  auto out = empty_differences(rows, at::kCPU);
  for (int64_t row = 0; row < rows; ++row) {
    Difference all;
    Scaled* parts[] = {&all.sum_abs, &all.squares, &all.squares_a, &all.squares_b, &all.product};
    for (int64_t column = 0; column < kExactDifferences; ++column)
      parts[column]->value = exact::rounded(sums.at(row, column), &parts[column]->exponent);
    const int64_t* c = counts.const_data_ptr<int64_t>() + row * kPartCounts;
    all.finite = c[kPartFinite];
    all.differing = c[kPartDiffering];
    all.nonfinite = c[kPartNonfinite];
    all.first = c[kPartFirst];
    all.max_abs = largest.const_data_ptr<double>()[row];
    write_difference(all, numel.const_data_ptr<int64_t>()[row],
                     std::get<0>(out).mutable_data_ptr<double>() + row * kDifferenceValues,
                     std::get<1>(out).mutable_data_ptr<int64_t>() + row * kDifferenceCounts);
  }
  return out;
}

}  // namespace pyparam::cpu
