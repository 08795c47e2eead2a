#include "table/compare.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>
#include <utility>

#include "kernels/compare.h"
#include "kernels/cpu/compare.h"
#include "kernels/cpu/pair.h"
#include "kernels/operands.h"

namespace pyparam {
namespace {

at::Tensor to_tensor(const std::vector<int64_t>& from) {
  at::Tensor out =
      at::empty({static_cast<int64_t>(from.size())}, at::TensorOptions().dtype(at::kLong));
  std::copy(from.begin(), from.end(), out.mutable_data_ptr<int64_t>());
  return out;
}

// Raises unless the op takes the tensor. `on_cuda`: from a CUDA device too.
void check(bool on_cuda, const char* list, int64_t index, const at::Tensor& tensor) {
  if (on_cuda && tensor.is_cuda()) {
    cpu::check_comparable_values(list, index, tensor);
  } else {
    cpu::check_comparable(list, index, tensor);
  }
}

// The same of a side's entries. Of what files have, the dtype alone may be wrong.
class Checked {
 public:
  Checked(const ComparedSide& side, const char* list, bool on_cuda)
      : side_(side), list_(list), on_cuda_(on_cuda) {}

  void require(int64_t index) {
    const auto i = static_cast<size_t>(index);
    if (side_.table() != nullptr) {
      check(on_cuda_, list_, index, side_.table()->tensors[i]);
      return;
    }
    const auto dtype = static_cast<size_t>(side_.dtype(i));
    if (dtypes_[dtype]) return;
    check(on_cuda_, list_, index, side_.tensor(i));
    dtypes_[dtype] = true;
  }

 private:
  const ComparedSide& side_;
  const char* list_;
  bool on_cuda_;
  std::array<bool, static_cast<size_t>(at::ScalarType::NumOptions)> dtypes_{};
};

// Pairs whose tensors are made at once, where a side has none.
constexpr size_t kMadeAtOnce = 4096;

std::vector<at::Tensor> tensors_of(const ComparedSide& side, const std::vector<int64_t>& rows,
                                   size_t begin, size_t end) {
  std::vector<at::Tensor> tensors;
  tensors.reserve(end - begin);
  for (size_t i = begin; i < end; ++i) tensors.push_back(side.tensor(static_cast<size_t>(rows[i])));
  return tensors;
}

// Writes the rows of `part` into `whole` from row `begin` on; both lie in memory, row by row.
void put_rows(const at::Tensor& part, const at::Tensor& whole, size_t begin) {
  const auto row = static_cast<size_t>(whole.size(1)) * whole.itemsize();
  std::memcpy(static_cast<char*>(whole.mutable_data_ptr()) + begin * row, part.const_data_ptr(),
              part.nbytes());
}

}  // namespace

ComparedSide::ComparedSide(NameColumn names, std::shared_ptr<const files::MappedRows> rows)
    : rows_(std::move(rows)), names_(std::move(names)) {
  TORCH_CHECK(names_.size() == rows_->size(),
              "internal error, please report: names and rows differ in length");
}

TableComparison compare_matched(const ComparedSide& a, const ComparedSide& b,
                                const Matching& matching, bool release_a, bool release_b) {
  using Columns = std::tuple<at::Tensor, at::Tensor>;
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("pyparam::compare", "")
                             .typed<Columns(at::TensorList, at::TensorList)>();
  const bool served = op.hasKernelForDispatchKey(c10::DispatchKey::CUDA);
  TableComparison out;
  std::vector<int64_t> sizes;
  std::vector<int64_t> ends;
  for (auto* columns : {&out.in_a, &out.in_b, &ends}) columns->reserve(matching.in_a.size());
  // The op would speak of pairs, not of entries.
  Checked checked_a(a, "a", served);
  Checked checked_b(b, "b", served);
  for (size_t m = 0; m < matching.in_a.size(); ++m) {
    const int64_t in_a = matching.in_a[m];
    const int64_t in_b = matching.in_b[m];
    checked_a.require(in_a);
    checked_b.require(in_b);
    const at::IntArrayRef shape = a.shape(static_cast<size_t>(in_a));
    if (shape != b.shape(static_cast<size_t>(in_b))) {
      out.reshaped_a.push_back(in_a);
      out.reshaped_b.push_back(in_b);
      continue;
    }
    if (a.dtype(static_cast<size_t>(in_a)) != b.dtype(static_cast<size_t>(in_b)))
      out.retyped.push_back(static_cast<int64_t>(out.in_a.size()));
    out.in_a.push_back(in_a);
    out.in_b.push_back(in_b);
    sizes.insert(sizes.end(), shape.begin(), shape.end());
    ends.push_back(static_cast<int64_t>(sizes.size()));
  }
  out.sizes = to_tensor(sizes);
  out.ends = to_tensor(ends);
  const auto columns_of = [&](const std::vector<at::Tensor>& x, const std::vector<at::Tensor>& y) {
    return (release_a || release_b) && all_in_memory(x) && all_in_memory(y)
               ? cpu::compare(x, y, release_a, release_b)
               : op.call(x, y);
  };
  const auto in_memory = [](const ComparedSide& side) {
    return side.table() == nullptr || all_in_memory(side.table()->tensors);
  };
  const size_t pairs = out.in_a.size();
  const bool made = a.table() == nullptr || b.table() == nullptr;
  if (pairs != 0 && !(made && in_memory(a) && in_memory(b))) {
    std::tie(out.values, out.counts) =
        columns_of(tensors_of(a, out.in_a, 0, pairs), tensors_of(b, out.in_b, 0, pairs));
    return out;
  }
  // An op cannot be dispatched on no tensor at all.
  std::tie(out.values, out.counts) = cpu::empty_differences(static_cast<int64_t>(pairs), at::kCPU);
  // No pair's figures depend on which others are read with it.
  for (size_t begin = 0; begin < pairs; begin += kMadeAtOnce) {
    const size_t end = std::min(pairs, begin + kMadeAtOnce);
    const auto [values, counts] =
        columns_of(tensors_of(a, out.in_a, begin, end), tensors_of(b, out.in_b, begin, end));
    put_rows(values, out.values, begin);
    put_rows(counts, out.counts, begin);
  }
  return out;
}

}  // namespace pyparam
