#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/hash.h"

namespace pyparam::cpu {

// What reading a list of tensors once gives: the digests of those of few bytes, and what the pass
// over the bytes of all others needs.
struct HashOperands {
  struct Operand {
    size_t tensor;
    const char* bytes;  // null where the order in memory is not the logical one
    hash::Sums description;
  };
  at::Tensor digests;             // int64 [tensors, 2]
  std::vector<Operand> operands;  // of the others
  std::vector<int64_t> sizes;     // bytes of each operand
  std::vector<size_t> empty;      // tensors without elements, ascending
};

// The operands of a list of ordinary tensors, of which every one may be read; none where one is not
// such. With release_pages, all bytes are left to the pass that drops pages.
std::optional<HashOperands> read_ordinary_operands(at::TensorList tensors, bool release_pages);

// The op on the CPU. With release_pages, the pages of mapped files are dropped once they are read.
// Tensors carry neither the conjugate nor the negative bit.
at::Tensor fingerprint(at::TensorList tensors, bool release_pages);
// The same of tensors whose operands are these.
at::Tensor fingerprint(at::TensorList tensors, const HashOperands& read, bool release_pages);

}  // namespace pyparam::cpu
