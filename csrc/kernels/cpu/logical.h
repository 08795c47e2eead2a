// A strided CPU tensor's elements in row-major logical order, whatever its layout in memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "kernels/cpu/strided.h"

namespace pyparam::cpu {

// The tensor must outlive the view, be strided, on the CPU, and carry neither the conjugate nor the
// negative bit.
class LogicalView {
 public:
  LogicalView() = default;
  explicit LogicalView(const at::Tensor& tensor);

  int64_t itemsize() const { return itemsize_; }
  // Row-major order is the order in memory.
  bool contiguous() const { return !odometer_.has_value(); }

  // The elements [begin, begin + length): in place where they lie so, else copied to `buffer`,
  // which has room for length * itemsize() bytes.
  const char* read(int64_t begin, int64_t length, char* buffer) const;

 private:
  const char* data_ = nullptr;
  int64_t itemsize_ = 1;
  std::optional<Odometer> odometer_;  // none where the tensor is contiguous
};

}  // namespace pyparam::cpu
