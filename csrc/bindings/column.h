// Numbers as the int64 tensors that Python gets.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace pyparam {

template <typename Number>
at::Tensor column(const std::vector<Number>& values) {
  at::Tensor out = at::empty({static_cast<int64_t>(values.size())},
                             at::TensorOptions().dtype(at::kLong).device(at::kCPU));
  std::copy(values.begin(), values.end(), out.mutable_data_ptr<int64_t>());
  return out;
}

}  // namespace pyparam
