// Which tensors are ordinary: dense, and without anything that makes an op on them do more than its
// own work.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKeySet.h>

#include <cstdint>

#include "kernels/macros.h"

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

// The same of a tensor in this machine's memory, whose strides and sizes are numbers.
constexpr c10::DispatchKeySet kOrdinaryCpuKeys({c10::DispatchKey::CPU,
                                                c10::DispatchKey::AutogradCPU,
                                                c10::DispatchKey::AutocastCPU,
                                                c10::DispatchKey::ADInplaceOrView});

// `also` are keys that it may have beside those. An undefined tensor has none.
inline bool is_ordinary_cpu(const c10::TensorImpl& impl, c10::DispatchKeySet also = {}) {
  const c10::DispatchKeySet keys = impl.key_set();
  return (keys.raw_repr() & ~(kOrdinaryCpuKeys | also).raw_repr()) == 0 &&
         keys.has(c10::DispatchKey::CPU) && impl.unsafe_storage() &&  // has_storage(), inlined
         !impl.has_symbolic_sizes_strides();
}

// Where the elements of an ordinary tensor of this machine's memory begin, which fill as many
// places from its offset on; null where its storage does not hold them.
PYPARAM_INLINE const char* dense_memory(const c10::TensorImpl& impl, int64_t numel, uint64_t item) {
  const c10::StorageImpl& storage = *impl.unsafe_storage().unsafeGetStorageImpl();
  const auto* base = static_cast<const char*>(storage.data());
  const auto offset = static_cast<uint64_t>(impl.storage_offset());
  uint64_t needed = 0;
  if (__builtin_mul_overflow(offset + static_cast<uint64_t>(numel), item, &needed) ||
      needed > storage.nbytes() || base == nullptr)
    return nullptr;
  return base + offset * item;
}

}  // namespace pyparam
