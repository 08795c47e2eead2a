#pragma once

#include <ATen/core/Tensor.h>

namespace pyparam::cpu {

// The op on the CPU. With release_pages, the pages of mapped files are dropped once they are read.
// Tensors carry neither the conjugate nor the negative bit.
at::Tensor fingerprint(at::TensorList tensors, bool release_pages);

}  // namespace pyparam::cpu
