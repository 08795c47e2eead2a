// Which tensors of a list lie over the same memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace pyparam {

struct Sharing {
  // For each tensor the number of its cluster, or -1 where it shares nothing. Clusters are numbered
  // in the order of their first members.
  std::vector<int64_t> cluster;
  // The tensor before this one in its cluster, or -1.
  std::vector<int64_t> previous;
  // The bytes of this tensor that no earlier tensor covers.
  std::vector<int64_t> fresh_bytes;
  // The members of each cluster, in order.
  std::vector<std::vector<int64_t>> members;
};

// The tie sets of table/ties.h as clusters.
Sharing find_sharing(const std::vector<at::Tensor>& tensors);

// The bytes that a tensor's elements take: numel times item size for strided tensors, the parts of
// a sparse one together, 0 where that cannot be told (symbolic sizes). Never throws.
int64_t bytes_of(const at::Tensor& tensor) noexcept;

// The number of elements, 0 where that cannot be told. Never throws.
int64_t elements_of(const at::Tensor& tensor) noexcept;

}  // namespace pyparam
