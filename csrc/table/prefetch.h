// Tens of thousands of tensors lie all over memory: a loop over them waits for each, unless it asks
// ahead.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>

namespace pyparam {

constexpr size_t kAheadOfTensors = 12;
constexpr size_t kAheadOfStorages = 6;

inline void prefetch_bytes(const void* data, int lines) {
  for (int line = 0; line < lines; ++line)
    __builtin_prefetch(static_cast<const char*>(data) + 64 * line);
}

// What a tensor says of itself: its implementation is a bit more than three cache lines.
inline void prefetch(const at::Tensor& tensor) { prefetch_bytes(tensor.unsafeGetTensorImpl(), 4); }

// Where its data is; the tensor itself should have been asked for before.
inline void prefetch_storage(const at::Tensor& tensor) {
  if (tensor.defined() && tensor.has_storage()) {
    prefetch_bytes(tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl(), 1);
  }
}

}  // namespace pyparam
