// Tens of thousands of tensors lie all over memory: a loop over them waits for each, unless it asks
// ahead.
//
// All of this is inlined whatever the compiler thinks: GCC takes a function of prefetches alone for
// one without effects, and drops the calls to it. .ci/check_prefetch.py looks at what was built.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>

#include "kernels/macros.h"

namespace pyparam {

constexpr size_t kAheadOfTensors = 24;
constexpr size_t kAheadOfStorages = 12;

PYPARAM_INLINE void prefetch_bytes(const void* data, int lines) {
  for (int line = 0; line < lines; ++line)
    __builtin_prefetch(static_cast<const char*>(data) + 64 * line);
}

// What a tensor says of itself: its implementation is a bit more than three cache lines.
PYPARAM_INLINE void prefetch(const at::Tensor& tensor) {
  prefetch_bytes(tensor.unsafeGetTensorImpl(), 4);
}

// Where its data is and how much: two lines of the storage. The tensor itself should have been
// asked for before.
PYPARAM_INLINE void prefetch_storage(const at::Tensor& tensor) {
  if (tensor.defined() && tensor.has_storage()) {
    prefetch_bytes(tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl(), 2);
  }
}

// Both, for a loop that is at `index` of a list.
PYPARAM_INLINE void prefetch_ahead(at::TensorList tensors, size_t index) {
  if (index + kAheadOfTensors < tensors.size()) prefetch(tensors[index + kAheadOfTensors]);
  if (index + kAheadOfStorages < tensors.size())
    prefetch_storage(tensors[index + kAheadOfStorages]);
}

}  // namespace pyparam
