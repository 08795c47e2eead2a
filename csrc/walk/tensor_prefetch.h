// Fetches the tensors of members to come while the ones before them are worked on.
#pragma once

#include <torch/csrc/autograd/python_variable.h>

#include "walk/plain_walk.h"

namespace pyparam::walk {

// Call with i, i + 1, ... in turn. Members of one depth lie behind one another in the list, so the
// next few are near in the list, if not in memory: first the Python object, then, when that has
// come, the tensor it points to, then the storage whose count goes up.
PYPARAM_INLINE void prefetch_tensors(const std::vector<Member>& members, size_t i) {
  constexpr size_t kObject = 24, kTensor = 16, kStorage = 8;
  if (i + kObject < members.size()) prefetch(members[i + kObject].value);
  if (i + kTensor < members.size() && THPVariable_CheckExact(members[i + kTensor].value)) {
    const auto* impl = reinterpret_cast<const char*>(
        THPVariable_Unpack(members[i + kTensor].value).unsafeGetTensorImpl());
    prefetch(impl);
    prefetch(impl + 64);
    prefetch(impl + 128);
  }
  if (i + kStorage < members.size() && THPVariable_CheckExact(members[i + kStorage].value)) {
    const at::Tensor& tensor = THPVariable_Unpack(members[i + kStorage].value);
    if (tensor.has_storage())
      prefetch(tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl());
  }
}

}  // namespace pyparam::walk
