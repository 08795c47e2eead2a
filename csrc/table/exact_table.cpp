#include "table/exact_table.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "kernels/cpu/isa.h"
#include "kernels/measure.h"

namespace pyparam {
namespace {

at::Tensor empty(at::IntArrayRef sizes, at::ScalarType dtype) {
  return at::empty(sizes, at::TensorOptions().dtype(dtype));
}

void check(const at::Tensor& tensor, at::IntArrayRef sizes, at::ScalarType dtype) {
  TORCH_CHECK(tensor.is_cpu() && tensor.is_contiguous() && tensor.scalar_type() == dtype &&
                  tensor.sizes() == sizes,
              "pyparam internal error, please report: columns of exact sums do not fit");
}

int64_t length_of(const int64_t* window) { return std::max<int64_t>(0, -window[1] - window[0]); }

void check_windows(const at::Tensor& windows) {
  const auto* w = windows.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < windows.numel(); i += 2) {
    TORCH_CHECK(length_of(w + i) == 0 || (w[i] >= 0 && -w[i + 1] <= exact::kLimbs),
                "pyparam internal error, please report: a window of limbs is out of range");
  }
}

}  // namespace

ExactTable ExactTable::summed(const at::Tensor& values, const at::Tensor& rows_of, int64_t rows) {
  const cpu::ExactFloats mode;
  check(values, {values.numel()}, at::kDouble);
  check(rows_of, {values.numel()}, at::kLong);
  const auto* v = values.const_data_ptr<double>();
  const auto* row_of = rows_of.const_data_ptr<int64_t>();
  std::vector<exact::Accumulator> sums(static_cast<size_t>(rows));
  for (int64_t i = 0; i < values.numel(); ++i) {
    TORCH_CHECK(row_of[i] >= 0 && row_of[i] < rows && is_finite(v[i]),
                "pyparam internal error, please report: no such row of exact sums");
    sums[static_cast<size_t>(row_of[i])].add(v[i]);
  }
  ExactTable out(rows, 1);
  for (int64_t row = 0; row < rows; ++row) out.at(row, 0) = sums[static_cast<size_t>(row)].number();
  return out;
}

at::Tensor ExactTable::windows() const {
  at::Tensor out = empty({rows_, 2 * columns_}, at::kLong);
  auto* w = out.mutable_data_ptr<int64_t>();
  for (const exact::Number& number : numbers_) {
    const bool none = number.limbs.empty();
    *w++ = none ? exact::kLimbs : number.first;
    *w++ = none ? 0 : -(number.first + static_cast<int64_t>(number.limbs.size()));
  }
  return out;
}

std::tuple<at::Tensor, at::Tensor> ExactTable::packed(const at::Tensor& windows) const {
  check(windows, {rows_, 2 * columns_}, at::kLong);
  check_windows(windows);
  const auto* w = windows.const_data_ptr<int64_t>();
  at::Tensor lengths = empty({rows_}, at::kLong);
  auto* row_lengths = lengths.mutable_data_ptr<int64_t>();
  int64_t all = 0;
  for (int64_t row = 0; row < rows_; ++row) {
    row_lengths[row] = 0;
    for (int64_t c = 0; c < columns_; ++c)
      row_lengths[row] += length_of(w + 2 * (row * columns_ + c));
    all += row_lengths[row];
  }
  at::Tensor limbs = empty({all}, at::kLong);
  auto* to = limbs.mutable_data_ptr<int64_t>();
  std::fill(to, to + all, 0);
  for (size_t i = 0; i < numbers_.size(); ++i) {
    const exact::Number& number = numbers_[i];
    const int64_t length = length_of(w + 2 * i);
    if (!number.limbs.empty()) {
      const int64_t skipped = number.first - w[2 * i];
      TORCH_CHECK(skipped >= 0 && skipped + static_cast<int64_t>(number.limbs.size()) <= length,
                  "pyparam internal error, please report: a window is narrower than its number");
      std::copy(number.limbs.begin(), number.limbs.end(), to + skipped);
    }
    to += length;
  }
  return {limbs, lengths};
}

ExactTable ExactTable::unpacked(const at::Tensor& windows, const at::Tensor& limbs) {
  const int64_t rows = windows.size(0);
  const int64_t columns = windows.size(1) / 2;
  check(windows, {rows, 2 * columns}, at::kLong);
  check_windows(windows);
  check(limbs, {limbs.numel()}, at::kLong);
  ExactTable out(rows, columns);
  const auto* w = windows.const_data_ptr<int64_t>();
  const auto* from = limbs.const_data_ptr<int64_t>();
  int64_t left = limbs.numel();
  exact::Accumulator sum;
  for (size_t i = 0; i < out.numbers_.size(); ++i) {
    const int64_t length = length_of(w + 2 * i);
    TORCH_CHECK(length <= left,
                "pyparam internal error, please report: limbs are missing from a sum");
    sum.clear();
    sum.add(static_cast<int>(w[2 * i]), from, static_cast<size_t>(length));
    out.numbers_[i] = sum.number();
    from += length;
    left -= length;
  }
  return out;
}

at::Tensor ExactTable::rounded() const {
  const cpu::ExactFloats mode;
  at::Tensor out = empty({rows_, columns_}, at::kDouble);
  auto* to = out.mutable_data_ptr<double>();
  for (const exact::Number& number : numbers_) *to++ = exact::rounded(number);
  return out;
}

std::tuple<at::Tensor, at::Tensor> statistics_of(const ExactTable& sums, const at::Tensor& counts,
                                                 const at::Tensor& extremes,
                                                 const at::Tensor& counted) {
  const cpu::ExactFloats mode;
  const int64_t rows = sums.rows();
  TORCH_CHECK(sums.columns() == kExactColumns,
              "pyparam internal error, please report: these are no sums of measuring");
  check(counts, {rows, kCountColumns}, at::kLong);
  check(extremes, {rows, 2}, at::kDouble);
  check(counted, {rows}, at::kBool);
  at::Tensor values = empty({rows + 1, kValueColumns}, at::kDouble);
  at::Tensor all_counts = empty({rows + 1, kCountColumns}, at::kLong);
  auto* to = values.mutable_data_ptr<double>();
  auto* to_counts = all_counts.mutable_data_ptr<int64_t>();
  exact::Sums total;
  Statistics of_total;
  int64_t numel = 0;
  int64_t nbytes = 0;
  const auto write = [&](int64_t row, const Statistics& s, int64_t elements, int64_t bytes,
                         const exact::Numbers& numbers) {
    double* row_values = to + row * kValueColumns;
    int64_t* row_counts = to_counts + row * kCountColumns;
    write_row(s, elements, bytes, row_values, row_counts);
    exact::write_sums(numbers, row_values, row_counts);
  };
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t* c = counts.const_data_ptr<int64_t>() + row * kCountColumns;
    const double* e = extremes.const_data_ptr<double>() + 2 * row;
    Statistics s;
    s.finite = c[kFinite];
    s.zeros = c[kZeros];
    s.subnormals = c[kSubnormals];
    s.nans = c[kNans];
    s.posinfs = c[kPosInfs];
    s.neginfs = c[kNegInfs];
    if (s.finite > 0) {
      s.min = e[0];
      s.max = e[1];
    }
    const exact::Numbers numbers{sums.at(row, kExactValues), sums.at(row, kExactMagnitudes),
                                 sums.at(row, kExactSquares)};
    write(row, s, c[kNumel], c[kBytes], numbers);
    if (!counted.const_data_ptr<bool>()[row]) continue;
    exact::add(total, numbers);
    of_total = combine(of_total, s);
    numel += c[kNumel];
    nbytes += c[kBytes];
  }
  write(rows, of_total, numel, nbytes, exact::numbers_of(total));
  return {values, all_counts};
}

}  // namespace pyparam
