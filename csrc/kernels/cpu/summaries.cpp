#include "kernels/cpu/summaries.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/measure.h"
#include "kernels/cpu/packed_bins.h"
#include "kernels/histogram.h"
#include "kernels/math.h"

namespace pyparam {

namespace {

at::Tensor empty_like_rows(at::IntArrayRef sizes, at::ScalarType dtype) {
  return at::empty(sizes, at::TensorOptions().dtype(dtype));
}

template <typename T>
at::Tensor tensor_of(const std::vector<T>& from, at::ScalarType dtype) {
  at::Tensor out = empty_like_rows({static_cast<int64_t>(from.size())}, dtype);
  std::copy(from.begin(), from.end(), static_cast<T*>(out.mutable_data_ptr()));
  return out;
}

using cpu::SparseRow;

SparseRow sparse_row(const at::Tensor& offsets, const at::Tensor& bins, const at::Tensor& counts,
                     int64_t row) {
  if (row < 0) return {};
  const auto* at = offsets.const_data_ptr<int64_t>();
  return {bins.const_data_ptr<int32_t>() + at[row], counts.const_data_ptr<int64_t>() + at[row],
          at[row + 1] - at[row]};
}

// The histograms of all rows as the op gives them, read like packed ones.
struct SparseRows {
  const at::Tensor &offsets, &bins, &counts;

  int64_t rows() const { return offsets.numel() - 1; }
  SparseRow operator()(int64_t row) const { return sparse_row(offsets, bins, counts, row); }
};

bool has_elements(const at::Tensor& counts, int64_t row) {
  return row >= 0 && counts.const_data_ptr<int64_t>()[row * kCountColumns + kNumel] > 0;
}

// Calls fn(step, count) for each bin of a row whose numbers lack their last bits: how far it lies
// behind the one before, of the first its number.
template <typename Fn>
void wider_bins(const SparseRow& row, int64_t dropped, const Fn& fn) {
  int32_t last = 0;
  for (int64_t e = 0; e < row.size;) {
    const int32_t bin = row.bins[e] >> dropped;
    int64_t count = 0;
    for (; e < row.size && row.bins[e] >> dropped == bin; ++e) count += row.counts[e];
    fn(bin - last, count);
    last = bin;
  }
}

// The narrowest unsigned type that holds a number; int64 where that takes more than 32 bits.
at::ScalarType narrowest(int64_t most) {
  if (most < int64_t{1} << 8) return at::kByte;
  if (most < int64_t{1} << 16) return at::kUInt16;
  return most < int64_t{1} << 32 ? at::kUInt32 : at::kLong;
}

// Writes numbers one after the other into a tensor of a type that holds them.
class NarrowColumn {
 public:
  NarrowColumn(int64_t count, int64_t most)
      : tensor_(empty_like_rows({count}, narrowest(most))),
        at_(static_cast<char*>(tensor_.mutable_data_ptr())),
        width_(tensor_.itemsize()) {}

  void push(int64_t value) {
    // Little-endian, as all machines are that it is built for.
    std::memcpy(at_, &value, width_);
    at_ += width_;
  }
  const at::Tensor& tensor() const { return tensor_; }

 private:
  at::Tensor tensor_;
  char* at_;
  size_t width_;
};

// `Histograms` is SparseRows or a BinReader.
template <typename Histograms>
std::tuple<at::Tensor, at::Tensor, at::Tensor> steps_of(Histograms histograms, int64_t dropped) {
  const int64_t rows = histograms.rows();
  at::Tensor lengths = empty_like_rows({rows}, at::kLong);
  int64_t entries = 0, widest = 0, most = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t before = entries;
    wider_bins(histograms(row), dropped, [&](int64_t step, int64_t count) {
      ++entries;
      widest = std::max(widest, step);
      most = std::max(most, count);
    });
    lengths.mutable_data_ptr<int64_t>()[row] = entries - before;
  }
  NarrowColumn steps(entries, widest);
  NarrowColumn counts(entries, most);
  for (int64_t row = 0; row < rows; ++row) {
    wider_bins(histograms(row), dropped, [&](int64_t step, int64_t count) {
      steps.push(step);
      counts.push(count);
    });
  }
  return {lengths, steps.tensor(), counts.tensor()};
}

template <typename Histograms>
at::Tensor quantiles_of(Histograms histograms, const at::Tensor& extremes,
                        const at::Tensor& one_value, const at::Tensor& q) {
  const cpu::ExactFloats mode;
  const int64_t rows = histograms.rows();
  at::Tensor out = empty_like_rows({rows, q.numel()}, at::kDouble);
  std::vector<int64_t> through;  // counts up to and including each entry
  for (int64_t row = 0; row < rows; ++row) {
    const SparseRow r = histograms(row);
    const double min = extremes.const_data_ptr<double>()[2 * row];
    const double max = extremes.const_data_ptr<double>()[2 * row + 1];
    const bool single = one_value.const_data_ptr<bool>()[row];
    through.assign(static_cast<size_t>(r.size), 0);
    int64_t n = 0;
    for (int64_t e = 0; e < r.size; ++e) through[e] = n += r.counts[e];
    const auto order_statistic = [&](int64_t rank) {
      if (rank <= 0) return min;
      if (rank >= n - 1) return max;
      const auto e = std::upper_bound(through.begin(), through.end(), rank) - through.begin();
      const auto position = static_cast<double>(rank - (through[e] - r.counts[e]));
      const double value =
          value_in_bin(r.bins[e], position, static_cast<double>(r.counts[e]), single);
      return std::min(std::max(value, min), max);
    };
    double* to = out.mutable_data_ptr<double>() + row * q.numel();
    for (int64_t i = 0; i < q.numel(); ++i) {
      if (n == 0) {
        to[i] = not_a_number();
        continue;
      }
      const double at = q.const_data_ptr<double>()[i] * static_cast<double>(n - 1);
      const auto rank = static_cast<int64_t>(std::floor(at));
      const double part = at - static_cast<double>(rank);
      const double low = order_statistic(rank);
      to[i] = part == 0 ? low : low + (order_statistic(rank + 1) - low) * part;
    }
  }
  return out;
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> merge_statistics(
    const at::Tensor& values_a, const at::Tensor& counts_a, const at::Tensor& index_a,
    const at::Tensor& values_b, const at::Tensor& counts_b, const at::Tensor& index_b) {
  const cpu::ExactFloats mode;
  const int64_t rows = index_a.numel();
  at::Tensor values = empty_like_rows({rows, kValueColumns}, at::kDouble);
  at::Tensor counts = empty_like_rows({rows, kCountColumns}, at::kLong);
  const auto* ia = index_a.const_data_ptr<int64_t>();
  const auto* ib = index_b.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < rows; ++row) {
    Statistics s;
    int64_t numel = 0;
    int64_t nbytes = 0;
    const auto add = [&](const at::Tensor& v, const at::Tensor& c, int64_t from) {
      if (from < 0) return;
      const int64_t* from_counts = c.const_data_ptr<int64_t>() + from * kCountColumns;
      s = combine(s, read_row(v.const_data_ptr<double>() + from * kValueColumns, from_counts));
      numel += from_counts[kNumel];
      nbytes += from_counts[kBytes];
    };
    // What only one side has stays as it is: its roots are of sums that the row no longer has.
    const bool in_a = has_elements(counts_a, ia[row]);
    const bool in_b = has_elements(counts_b, ib[row]);
    if (in_a != in_b) {
      const int64_t from = in_a ? ia[row] : ib[row];
      std::copy_n((in_a ? values_a : values_b).const_data_ptr<double>() + from * kValueColumns,
                  kValueColumns, values.mutable_data_ptr<double>() + row * kValueColumns);
      std::copy_n((in_a ? counts_a : counts_b).const_data_ptr<int64_t>() + from * kCountColumns,
                  kCountColumns, counts.mutable_data_ptr<int64_t>() + row * kCountColumns);
      continue;
    }
    add(values_a, counts_a, ia[row]);
    add(values_b, counts_b, ib[row]);
    write_row(s, numel, nbytes, values.mutable_data_ptr<double>() + row * kValueColumns,
              counts.mutable_data_ptr<int64_t>() + row * kCountColumns);
  }
  return {values, counts};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> merge_histograms(
    const at::Tensor& offsets_a, const at::Tensor& bins_a, const at::Tensor& counts_a,
    const at::Tensor& index_a, const at::Tensor& offsets_b, const at::Tensor& bins_b,
    const at::Tensor& counts_b, const at::Tensor& index_b) {
  std::vector<int64_t> offsets{0};
  std::vector<int32_t> bins;
  std::vector<int64_t> counts;
  for (int64_t row = 0; row < index_a.numel(); ++row) {
    const SparseRow a =
        sparse_row(offsets_a, bins_a, counts_a, index_a.const_data_ptr<int64_t>()[row]);
    const SparseRow b =
        sparse_row(offsets_b, bins_b, counts_b, index_b.const_data_ptr<int64_t>()[row]);
    for (int64_t i = 0, j = 0; i < a.size || j < b.size;) {
      const int32_t next_a = i < a.size ? a.bins[i] : kBins;
      const int32_t next_b = j < b.size ? b.bins[j] : kBins;
      bins.push_back(std::min(next_a, next_b));
      counts.push_back((next_a <= next_b ? a.counts[i] : 0) + (next_b <= next_a ? b.counts[j] : 0));
      i += next_a <= next_b;
      j += next_b <= next_a;
    }
    offsets.push_back(static_cast<int64_t>(bins.size()));
  }
  return {tensor_of(offsets, at::kLong), tensor_of(bins, at::kInt), tensor_of(counts, at::kLong)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> histogram_steps(const at::Tensor& offsets,
                                                               const at::Tensor& bins,
                                                               const at::Tensor& counts,
                                                               int64_t dropped) {
  return steps_of(SparseRows{offsets, bins, counts}, dropped);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> histogram_steps(const cpu::PackedBins& histograms,
                                                               int64_t dropped) {
  return steps_of(cpu::BinReader(histograms), dropped);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> histogram_rows(
    const cpu::PackedBins& histograms, const std::optional<at::Tensor>& rows) {
  cpu::BinReader read(histograms);
  const int64_t count = rows.has_value() ? rows->numel() : read.rows();
  const auto row_at = [&](int64_t i) {
    return rows.has_value() ? rows->const_data_ptr<int64_t>()[i] : i;
  };
  at::Tensor offsets = empty_like_rows({count + 1}, at::kLong);
  auto* const ends = offsets.mutable_data_ptr<int64_t>();
  ends[0] = 0;
  if (rows.has_value()) {
    for (int64_t i = 0; i < count; ++i) ends[i + 1] = ends[i] + read(row_at(i)).size;
  }
  const int64_t entries = rows.has_value() ? ends[count] : histograms.entries();
  at::Tensor below = empty_like_rows({count, kLimits}, at::kLong);
  at::Tensor bins = empty_like_rows({entries}, at::kInt);
  at::Tensor counts = empty_like_rows({entries}, at::kLong);
  for (int64_t i = 0; i < count; ++i) {
    const SparseRow row = read(row_at(i));
    ends[i + 1] = ends[i] + row.size;
    std::copy_n(row.bins, row.size, bins.mutable_data_ptr<int32_t>() + ends[i]);
    std::copy_n(row.counts, row.size, counts.mutable_data_ptr<int64_t>() + ends[i]);
    read.below(row_at(i), 0, kLimits, below.mutable_data_ptr<int64_t>() + i * kLimits);
  }
  return {below, offsets, bins, counts};
}

at::Tensor histogram_below(const cpu::PackedBins& histograms, int64_t first, int64_t count) {
  const cpu::BinReader read(histograms);
  at::Tensor out = empty_like_rows({read.rows(), count}, at::kLong);
  for (int64_t row = 0; row < read.rows(); ++row) {
    read.below(row, static_cast<int>(first), static_cast<int>(count),
               out.mutable_data_ptr<int64_t>() + row * count);
  }
  return out;
}

std::tuple<at::Tensor, at::Tensor> bin_edges(const at::Tensor& bins) {
  const cpu::ExactFloats mode;
  at::Tensor lower = empty_like_rows({bins.numel()}, at::kDouble);
  at::Tensor upper = empty_like_rows({bins.numel()}, at::kDouble);
  const auto* from = bins.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < bins.numel(); ++i) {
    const auto edges = std::minmax({bin_inner(from[i]), bin_outer(from[i])});
    lower.mutable_data_ptr<double>()[i] = edges.first;
    upper.mutable_data_ptr<double>()[i] = edges.second;
  }
  return {lower, upper};
}

at::Tensor histogram_quantiles(const at::Tensor& offsets, const at::Tensor& bins,
                               const at::Tensor& counts, const at::Tensor& extremes,
                               const at::Tensor& one_value, const at::Tensor& q) {
  return quantiles_of(SparseRows{offsets, bins, counts}, extremes, one_value, q);
}

at::Tensor histogram_quantiles(const cpu::PackedBins& histograms, const at::Tensor& extremes,
                               const at::Tensor& one_value, const at::Tensor& q) {
  return quantiles_of(cpu::BinReader(histograms), extremes, one_value, q);
}

}  // namespace pyparam
