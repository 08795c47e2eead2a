// A quick answer to whether tensors may share memory, for verbs that only then have to look
// closely.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/COW.h>

#include <cstdint>
#include <vector>

#include "kernels/spans.h"

namespace pyparam {

// Takes tensors in and says at last whether no byte can be in two of them. "Not apart" is a guess
// to be looked into (table/ties.h): bounding intervals met, or a tensor's memory has no address to
// compare. Tensors without memory are apart from all.
class ApartCheck {
 public:
  void reserve(size_t tensors) { spans_.reserve(tensors); }

  void append(const at::Tensor& tensor) {
    if (!known_) return;
    if (tensor.layout() != at::kStrided || !tensor.has_storage()) return;
    if (tensor.numel() == 0) return;
    const c10::StorageImpl& storage =
        *tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
    // Lazy clones have one address and two memories; what another device calls an address may not
    // be one. Neither occurs in the lists that this check is to be quick for.
    const at::DataPtr& data = storage.data_ptr();
    if (!tensor.is_cpu() && !tensor.is_cuda()) known_ = false;
    if (tensor.is_cpu() && c10::impl::cow::is_cow_data_ptr(data)) known_ = false;
    if (data.get() == nullptr) return;
    const auto unit = static_cast<int64_t>(tensor.itemsize());
    const char* begin = static_cast<const char*>(data.get()) + tensor.storage_offset() * unit;
    const int64_t reach = tensor.is_contiguous() ? tensor.numel() : reach_of(tensor);
    spans_.push_back({begin, begin + reach * unit});
  }

  bool apart() { return known_ && !any_meet(spans_); }

 private:
  std::vector<Span> spans_;
  bool known_ = true;
};

}  // namespace pyparam
