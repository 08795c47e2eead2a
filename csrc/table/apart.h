// A quick answer to whether tensors may share memory, for verbs that only then have to look
// closely.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/COW.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "kernels/spans.h"

namespace pyparam {

// Takes a list of tensors in and says at last whether no byte can be in two of them. "Not apart" is
// a guess to be looked into (table/ties.h): bounding intervals met, or a tensor's memory has no
// address to compare. Tensors without memory are apart from all.
class ApartCheck {
 public:
  // Of so many tensors, each to be taken by its place, on whatever thread.
  void resize(size_t tensors) { spans_.resize(tensors); }

  void take(size_t place, const at::Tensor& tensor) {
    if (tensor.layout() != at::kStrided || !tensor.has_storage()) return;
    if (tensor.numel() == 0) return;
    const c10::StorageImpl& storage =
        *tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
    // What another device calls an address may not be one.
    if (!tensor.is_cpu() && !tensor.is_cuda()) known_ = false;
    const auto* data = static_cast<const char*>(storage.data_ptr().get());
    if (data == nullptr) return;
    const auto unit = static_cast<int64_t>(tensor.itemsize());
    const int64_t reach = tensor.is_contiguous() ? tensor.numel() : reach_of(tensor);
    take(place, storage, data + tensor.storage_offset() * unit, reach * unit);
  }

  // The same of a tensor of which all that is known already.
  void take(size_t place, const c10::StorageImpl& storage, const char* begin, int64_t bytes) {
    // Lazy clones have one address and two memories. They do not occur in the lists that this check
    // is to be quick for.
    if (c10::impl::cow::is_cow_data_ptr(storage.data_ptr())) known_ = false;
    spans_[place] = {begin, begin + bytes};
  }

  bool apart() { return known_ && !any_meet(spans_); }

 private:
  std::vector<Span> spans_;
  std::atomic<bool> known_{true};
};

}  // namespace pyparam
