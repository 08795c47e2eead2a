// What flatten and scatter_ hand to their kernel.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Float8_e4m3fn.h>

#include "kernels/cuda/device.h"
#include "kernels/cuda/transfer.h"

namespace pyparam::cuda {

inline int64_t transfer_chunk(const at::Tensor& vector) {
  return chunk_elements_for(static_cast<int64_t>(vector.nbytes()),
                            static_cast<int64_t>(vector.itemsize()));
}

// `vector` is contiguous. The kernel writes it (flatten) or reads it (scatter_).
inline TransferArguments transfer_arguments(const TableView& table, const at::Tensor& vector) {
  return {table, static_cast<char*>(const_cast<void*>(vector.const_data_ptr())),
          static_cast<Dtype>(vector.scalar_type()), static_cast<int32_t>(vector.itemsize()),
          c10::Float8_e4m3fn(1e6f).x == 0x7e};
}

}  // namespace pyparam::cuda
