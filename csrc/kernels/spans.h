// Runs of bytes that tensors lie in. Knows no device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace pyparam {

// From a tensor's first to past its last byte; nothing without elements.
struct Span {
  const char* begin = nullptr;
  const char* end = nullptr;

  bool empty() const { return begin == end; }
  bool meets(const Span& other) const { return begin < other.end && other.begin < end; }
};

// Elements from the first to past the last in memory, of a strided tensor that has elements.
inline int64_t reach_of(const at::Tensor& tensor) {
  const auto sizes = tensor.sizes();
  const auto strides = tensor.strides();
  int64_t last = 0;
  for (size_t d = 0; d < sizes.size(); ++d) last += (sizes[d] - 1) * strides[d];
  return last + 1;
}

Span span_of(const at::Tensor& tensor);

// Whether any two of the spans have a byte in common. Takes them in any order, and leaves those
// that are not empty in another.
bool any_meet(std::vector<Span>& spans);

}  // namespace pyparam
