// Tens of thousands of tensors lie all over memory: a loop over them waits for each, unless it asks
// ahead.
//
// All of this is inlined whatever the compiler thinks: GCC takes a function of prefetches alone for
// one without effects, and drops the calls to it. .ci/check_prefetch.py looks at what was built.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>

#include "kernels/macros.h"

namespace pyparam {

constexpr size_t kAheadOfTensors = 24;
constexpr size_t kAheadOfStorages = 12;

PYPARAM_INLINE void prefetch_bytes(const void* data, int lines) {
  for (int line = 0; line < lines; ++line)
    __builtin_prefetch(static_cast<const char*>(data) + 64 * line);
}

// The lines that hold so many bytes, and no other: the memory of tens of thousands of tensors comes
// as fast as lines do.
PYPARAM_INLINE void prefetch_span(const void* data, int64_t bytes) {
  if (bytes <= 0) return;
  const auto* begin = static_cast<const char*>(data);
  for (int64_t at = 0; at < bytes - 1; at += 64) __builtin_prefetch(begin + at);
  __builtin_prefetch(begin + bytes - 1);
}

// What a tensor says of itself: all from its storage on, three cache lines or four.
PYPARAM_INLINE void prefetch(const at::Tensor& tensor) {
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  const auto* from = reinterpret_cast<const char*>(&impl->unsafe_storage());
  const auto* end = reinterpret_cast<const char*>(impl) + sizeof(c10::TensorImpl);
  prefetch_span(from, end - from);
}

// Where its data is and how much: one line of the storage or two. The tensor itself should have
// been asked for before.
PYPARAM_INLINE void prefetch_storage(const at::Tensor& tensor) {
  c10::StorageImpl* storage = tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
  if (storage == nullptr) return;
  // The size lies behind the address.
  prefetch_span(&storage->_mutable_data_ptr_no_checks(),
                static_cast<int64_t>(sizeof(at::DataPtr) + sizeof(c10::SymInt)));
}

// Both, for a loop that is at `index` of a list.
PYPARAM_INLINE void prefetch_ahead(at::TensorList tensors, size_t index) {
  if (index + kAheadOfTensors < tensors.size()) prefetch(tensors[index + kAheadOfTensors]);
  if (index + kAheadOfStorages < tensors.size())
    prefetch_storage(tensors[index + kAheadOfStorages]);
}

}  // namespace pyparam
