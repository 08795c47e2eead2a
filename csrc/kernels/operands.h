// What every bulk verb asks of a tensor before it reads the bytes, and how it says no.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>

#include "kernels/extent.h"
#include "table/prefetch.h"

namespace pyparam {

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

// Raises where the tensor has elements and not the memory for them.
inline void check_memory(const char* verb, const char* list, int64_t index,
                         const at::Tensor& tensor) {
  require_extent(tensor, [&] { return c10::str(verb, ": ", list, "[", index, "]"); });
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
