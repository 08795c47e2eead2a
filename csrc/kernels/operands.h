// What every bulk verb asks of a tensor before it reads the bytes, and how it says no.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>

namespace pyparam {

// How many tensors ahead to ask memory for. Walking 50,000 small ones is waiting for caches else.
inline constexpr int64_t kTensorsAhead = 8;

inline void prefetch_tensor(at::TensorList tensors, size_t index) {
  constexpr auto kAhead = static_cast<size_t>(kTensorsAhead);
  if (index + 2 * kAhead < tensors.size()) {
    const char* impl =
        reinterpret_cast<const char*>(tensors[index + 2 * kAhead].unsafeGetTensorImpl());
    for (size_t line = 0; line < sizeof(c10::TensorImpl); line += 64)
      __builtin_prefetch(impl + line);
  }
  if (index + kAhead < tensors.size() && tensors[index + kAhead].has_storage()) {
    __builtin_prefetch(
        tensors[index + kAhead].unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl());
  }
}

// Raises unless the tensor is dense and strided. `list` is the argument's name ("tensors").
inline void check_strided(const char* verb, const char* list, int64_t index,
                          const at::Tensor& tensor) {
  TORCH_CHECK_TYPE(tensor.defined(), verb, ": ", list, "[", index,
                   "] is undefined; expected a tensor");
  TORCH_CHECK_TYPE(!tensor.is_nested(), verb, ": ", list, "[", index,
                   "] is a nested tensor; expected a strided tensor (take its .values())");
  TORCH_CHECK_TYPE(!tensor.is_quantized(), verb, ": ", list, "[", index, "] is quantized (",
                   tensor.scalar_type(),
                   "); expected a plain tensor (take its .int_repr() or .dequantize())");
  TORCH_CHECK_TYPE(!tensor.is_sparse() && !tensor.unsafeGetTensorImpl()->is_sparse_compressed(),
                   verb, ": ", list, "[", index, "] is sparse (layout ", tensor.layout(),
                   "); expected a strided tensor");
  TORCH_CHECK_TYPE(tensor.layout() == at::kStrided, verb, ": ", list, "[", index,
                   "] has the layout ", tensor.layout(), "; expected a strided tensor");
}

// Raises where the tensor has elements and no memory.
inline void check_memory(const char* verb, const char* list, int64_t index,
                         const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(tensor.numel() == 0 || tensor.const_data_ptr() != nullptr, verb, ": ", list,
                    "[", index, "] has no memory behind it (its storage was freed)");
}

// Raises unless the tensor is dense, strided and lies in this machine's memory.
inline void check_readable(const char* verb, const char* list, int64_t index,
                           const at::Tensor& tensor) {
  check_strided(verb, list, index, tensor);
  TORCH_CHECK_VALUE(tensor.is_cpu(), verb, ": ", list, "[", index, "] is on ", tensor.device(),
                    "; expected all tensors on the CPU");
  check_memory(verb, list, index, tensor);
}

// Whether the CPU kernels can read the tensors as they are, without the dispatcher before them.
inline bool all_in_memory(at::TensorList tensors) {
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.is_cpu() || tensor.is_conj() || tensor.is_neg() || tensor._is_zerotensor())
      return false;
  }
  return true;
}

}  // namespace pyparam
