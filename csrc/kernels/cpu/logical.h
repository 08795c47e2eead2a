// A strided CPU tensor's elements in row-major logical order, whatever its layout in memory.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <cstdint>

namespace pyparam::cpu {

// The tensor must outlive the view, be strided, on the CPU, and carry neither the conjugate nor the
// negative bit.
class LogicalView {
 public:
  LogicalView() = default;
  explicit LogicalView(const at::Tensor& tensor);

  int64_t itemsize() const { return itemsize_; }
  // Row-major order is the order in memory.
  bool contiguous() const { return sizes_.empty(); }

  // The elements [begin, begin + length): in place where they lie so, else copied to `buffer`,
  // which has room for length * itemsize() bytes.
  const char* read(int64_t begin, int64_t length, char* buffer) const;

 private:
  const char* data_ = nullptr;
  int64_t itemsize_ = 1;
  // Dimensions of one element left out, neighbours that step evenly merged; none where the tensor
  // is contiguous.
  c10::SmallVector<int64_t, 6> sizes_;
  c10::SmallVector<int64_t, 6> strides_;  // in bytes
};

}  // namespace pyparam::cpu
