// Which tensors are ordinary: dense, and without anything that makes an op on them do more than its
// own work.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKeySet.h>

namespace pyparam {

// The keys of an ordinary dense tensor on any device; another one (Python, sparse, quantized,
// conjugated, functorch's ...) means that an op may do something of its own.
constexpr c10::DispatchKeySet kOrdinaryKeys =
    c10::DispatchKeySet({c10::DispatchKey::Dense, c10::DispatchKey::ADInplaceOrView,
                         c10::DispatchKey::AutogradFunctionality}) |
    c10::DispatchKeySet(c10::DispatchKeySet::RAW, c10::full_backend_mask) |
    c10::autocast_dispatch_keyset;

inline bool is_ordinary(const c10::TensorImpl& impl) {
  return (impl.key_set().raw_repr() & ~kOrdinaryKeys.raw_repr()) == 0;
}

}  // namespace pyparam
