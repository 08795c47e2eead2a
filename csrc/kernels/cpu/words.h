// How often a word of memory stands in tensors.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <vector>

namespace pyparam::cpu {

// The bits looked for in tensors of a dtype, in words of 2, 4 or 8 bytes.
struct WantedWord {
  c10::ScalarType dtype;
  int64_t size;
  uint64_t bits;
};

// How many words of each tensor are the one of its dtype (int64 [tensors]); -1 for what is not read
// here: any but an ordinary contiguous tensor in host memory that has all of its bytes, of one of
// these dtypes.
at::Tensor count_words(at::TensorList tensors, const std::vector<WantedWord>& words);

}  // namespace pyparam::cpu
