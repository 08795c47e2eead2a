// Gives the memory that reading a mapped file took back, so that a file of any size streams through
// little memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace pyparam::cpu {

// Pages of a file that nobody wrote to are dropped from this process; the system keeps or reads
// them again as it likes. Written pages of a private map, and memory of any other kind, stay:
// nothing is ever lost. Where the system does not tell (it is not Linux), nothing is dropped.
class PageReleaser {
 public:
  explicit PageReleaser(bool enabled);
  ~PageReleaser();
  PageReleaser(const PageReleaser&) = delete;
  PageReleaser& operator=(const PageReleaser&) = delete;

  bool enabled() const { return pagemap_ >= 0; }
  // Drops the pages from the one that holds the first byte up to the one that holds the end. Any
  // thread may call it, also while others read the same pages: they are read again.
  void release(const void* begin, int64_t bytes) const;
  // The same after reading the bytes [begin, begin + length) of a tensor in row-major order. Of one
  // that is not contiguous, all pages with the last byte.
  void release_read(const at::Tensor& tensor, int64_t begin, int64_t length) const;

 private:
  int pagemap_ = -1;
};

}  // namespace pyparam::cpu
