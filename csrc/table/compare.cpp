#include "table/compare.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <tuple>

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

}  // namespace

TableComparison compare_matched(const ParamTable& a, const ParamTable& b, const Matching& matching,
                                bool release_a, bool release_b) {
  using Columns = std::tuple<at::Tensor, at::Tensor>;
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("pyparam::compare", "")
                             .typed<Columns(at::TensorList, at::TensorList)>();
  const bool served = op.hasKernelForDispatchKey(c10::DispatchKey::CUDA);
  TableComparison out;
  std::vector<at::Tensor> tensors_a;
  std::vector<at::Tensor> tensors_b;
  std::vector<int64_t> sizes;
  std::vector<int64_t> ends;
  for (auto* columns : {&out.in_a, &out.in_b, &ends}) columns->reserve(matching.in_a.size());
  for (auto* tensors : {&tensors_a, &tensors_b}) tensors->reserve(matching.in_a.size());
  for (size_t m = 0; m < matching.in_a.size(); ++m) {
    const int64_t in_a = matching.in_a[m];
    const int64_t in_b = matching.in_b[m];
    const at::Tensor& x = a.tensors[static_cast<size_t>(in_a)];
    const at::Tensor& y = b.tensors[static_cast<size_t>(in_b)];
    // The op would speak of pairs, not of entries.
    check(served, "a", in_a, x);
    check(served, "b", in_b, y);
    if (x.sizes() != y.sizes()) {
      out.reshaped_a.push_back(in_a);
      out.reshaped_b.push_back(in_b);
      continue;
    }
    if (x.scalar_type() != y.scalar_type())
      out.retyped.push_back(static_cast<int64_t>(out.in_a.size()));
    out.in_a.push_back(in_a);
    out.in_b.push_back(in_b);
    tensors_a.push_back(x);
    tensors_b.push_back(y);
    sizes.insert(sizes.end(), x.sizes().begin(), x.sizes().end());
    ends.push_back(static_cast<int64_t>(sizes.size()));
  }
  out.sizes = to_tensor(sizes);
  out.ends = to_tensor(ends);
  if (tensors_a.empty()) {
    // An op cannot be dispatched on no tensor at all.
    const auto options = at::TensorOptions().device(at::kCPU);
    out.values = at::empty({0, kDifferenceValues}, options.dtype(at::kDouble));
    out.counts = at::empty({0, kDifferenceCounts}, options.dtype(at::kLong));
  } else if ((release_a || release_b) && all_in_memory(tensors_a) && all_in_memory(tensors_b)) {
    std::tie(out.values, out.counts) = cpu::compare(tensors_a, tensors_b, release_a, release_b);
  } else {
    std::tie(out.values, out.counts) = op.call(tensors_a, tensors_b);
  }
  return out;
}

}  // namespace pyparam
