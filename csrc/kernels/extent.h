// Whether the memory behind a tensor holds all of its elements. A storage can be shrunk or freed
// after its tensors were made (FSDP does so to every parameter between uses), and nothing about the
// tensor tells. Every verb asks here before it takes an address. Knows no device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <string>

#include "kernels/macros.h"
#include "kernels/spans.h"

namespace pyparam {

// Bytes that the storage of a strided tensor with elements has to have. In 64 bits, whatever offset
// and strides say.
PYPARAM_INLINE uint64_t bytes_needed(const at::Tensor& tensor) {
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  const int64_t reach = impl->is_contiguous() ? impl->numel() : reach_of(tensor);
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(
          static_cast<uint64_t>(impl->storage_offset()) + static_cast<uint64_t>(reach),
          static_cast<uint64_t>(impl->itemsize()), &bytes))
    return UINT64_MAX;
  return bytes;
}

// Whether all elements lie in the tensor's storage. True also of tensors that say nothing of it:
// without a storage, on the meta device, with symbolic sizes, wrappers of other tensors.
PYPARAM_INLINE bool has_extent(const at::Tensor& tensor) {
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  if (!impl->has_storage() || impl->has_symbolic_sizes_strides() ||
      impl->key_set().has(c10::DispatchKey::Python) ||
      impl->key_set().has(c10::DispatchKey::Meta) || impl->layout() != at::kStrided) {
    return true;
  }
  if (impl->numel() == 0) return true;
  const c10::StorageImpl& storage = *impl->unsafe_storage().unsafeGetStorageImpl();
  return bytes_needed(tensor) <= storage.nbytes() && storage.data() != nullptr;
}

// What is wrong with a tensor that has not, to be said behind its name.
inline std::string extent_words(const at::Tensor& tensor) {
  return c10::str("needs a storage of ", bytes_needed(tensor), " bytes and has one of ",
                  tensor.unsafeGetTensorImpl()->unsafe_storage().nbytes(),
                  " (its memory was freed or resized)");
}

// Raises where the storage is smaller than the tensor. `what()` says whose it is, "verb:
// tensors[3]".
template <typename What>
PYPARAM_INLINE void require_extent(const at::Tensor& tensor, const What& what) {
  if (__builtin_expect(!has_extent(tensor), false))
    TORCH_CHECK_VALUE(false, what(), " ", extent_words(tensor));
}

}  // namespace pyparam
