// Comparing a run of elements of two tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/cpu/difference.h"
#include "kernels/cpu/logical.h"
#include "kernels/difference.h"

namespace pyparam::cpu {

// Raises unless the tensor is strided and of numbers, wherever it is; or is so on the CPU. `list`
// is "a" or "b".
void check_comparable_values(const char* list, int64_t index, const at::Tensor& tensor);
void check_comparable(const char* list, int64_t index, const at::Tensor& tensor);

// One side of a pair.
struct Side {
  explicit Side(const at::Tensor& tensor);

  LogicalView view;
  Format format;
  int64_t parts;  // 2 for complex numbers, else 1
};

// What the elements [begin, begin + length) differ by. The tensors are readable, of one shape, and
// of types that stored_format knows. The result depends on begin and length, which are to be those
// of a fixed plan.
Difference compare_run(const at::Tensor& a, const at::Tensor& b, int64_t begin, int64_t length);

}  // namespace pyparam::cpu
