// What is made of measurements afterwards: merged rows, merged histograms, quantiles.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace pyparam {

namespace cpu {
class PackedBins;
}

// Row r of the result is row index_a[r] of a and row index_b[r] of b together; an index of -1 is a
// row that is not there. Columns are those of the measure op: values [*, kValueColumns] and counts
// [*, kCountColumns].
std::tuple<at::Tensor, at::Tensor> merge_statistics(
    const at::Tensor& values_a, const at::Tensor& counts_a, const at::Tensor& index_a,
    const at::Tensor& values_b, const at::Tensor& counts_b, const at::Tensor& index_b);

// The same for sparse histograms (offsets, bins, counts): the merged three.
std::tuple<at::Tensor, at::Tensor, at::Tensor> merge_histograms(
    const at::Tensor& offsets_a, const at::Tensor& bins_a, const at::Tensor& counts_a,
    const at::Tensor& index_a, const at::Tensor& offsets_b, const at::Tensor& bins_b,
    const at::Tensor& counts_b, const at::Tensor& index_b);

// The same histograms in wider bins, whose numbers lack the last `dropped` bits: how many bins each
// row has then (int64), of each how far it lies behind the one before it in its row, of a row's
// first its number (int32), and its count (int64).
std::tuple<at::Tensor, at::Tensor, at::Tensor> histogram_steps(const at::Tensor& offsets,
                                                               const at::Tensor& bins,
                                                               const at::Tensor& counts,
                                                               int64_t dropped);
std::tuple<at::Tensor, at::Tensor, at::Tensor> histogram_steps(const cpu::PackedBins& histograms,
                                                               int64_t dropped);

// Packed histograms of some rows (int64), or of all, as tensors: counts below the rounding limits
// (int64 [rows, kLimits]), offsets, bins and counts.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> histogram_rows(
    const cpu::PackedBins& histograms, const std::optional<at::Tensor>& rows);

// The counts of all rows below rounding limits [first, first + count): int64 [rows, count].
at::Tensor histogram_below(const cpu::PackedBins& histograms, int64_t first, int64_t count);

// The lower and the upper edge (float64) of each of some bins (int32).
std::tuple<at::Tensor, at::Tensor> bin_edges(const at::Tensor& bins);

// Quantiles q (float64, each in [0, 1]) of each row, interpolated between order statistics as
// torch.quantile does: float64 [rows, q]. `extremes` holds each row's min and max (float64 [rows,
// 2]), `one_value` (bool [rows]) whether a bin of that row can hold one value only.
at::Tensor histogram_quantiles(const at::Tensor& offsets, const at::Tensor& bins,
                               const at::Tensor& counts, const at::Tensor& extremes,
                               const at::Tensor& one_value, const at::Tensor& q);
at::Tensor histogram_quantiles(const cpu::PackedBins& histograms, const at::Tensor& extremes,
                               const at::Tensor& one_value, const at::Tensor& q);

}  // namespace pyparam
