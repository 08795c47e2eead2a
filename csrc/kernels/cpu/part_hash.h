// The fingerprint's sums over a part of a tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "kernels/hash.h"

namespace pyparam::cpu {

// A block of a whole: offsets and sizes of each dimension. No dimensions: a number by itself.
struct Block {
  std::vector<int64_t> whole, offsets, sizes;
};

// The words of eight bytes that the cuts at `borders` (element offsets along the dimension `dim`,
// ascending, 0 among them where pieces end there) put into two parts or more: indices of words,
// ascending. The same for all parts of a whole.
std::vector<int64_t> shared_words(const std::vector<int64_t>& whole, int64_t dim,
                                  const std::vector<int64_t>& borders, int64_t itemsize);

// The sums over the words that are the part's alone. What the part has of shared words, in their
// order in `shared`, goes to `pieces` (which begins as zeros).
hash::Sums hash_part(const at::Tensor& local, const Block& block,
                     const std::vector<int64_t>& shared, uint64_t* pieces);

}  // namespace pyparam::cpu
