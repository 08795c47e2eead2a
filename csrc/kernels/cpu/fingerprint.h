#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/hash.h"

namespace pyparam::cpu {

// What the pass over the bytes needs of a list of tensors, gathered in one place.
struct HashOperands {
  struct Operand {
    const char* bytes;  // null where the order in memory is not the logical one
    hash::Sums description;
  };
  std::vector<int64_t> sizes;  // bytes
  std::vector<Operand> operands;
  std::vector<size_t> empty;  // tensors without elements, ascending
};

// The operands of a list of ordinary tensors, of which every one may be read; none where one is not
// such.
std::optional<HashOperands> read_ordinary_operands(at::TensorList tensors);

// The op on the CPU. With release_pages, the pages of mapped files are dropped once they are read.
// Tensors carry neither the conjugate nor the negative bit.
at::Tensor fingerprint(at::TensorList tensors, bool release_pages);
// The same of tensors whose operands are these.
at::Tensor fingerprint(at::TensorList tensors, const HashOperands& read, bool release_pages);

}  // namespace pyparam::cpu
