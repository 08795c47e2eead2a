// Which tensors of a list are laid out alike: shape, dtype and device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace pyparam {

struct LayoutKinds {
  std::vector<int64_t> kind_of;  // of each tensor, counted from 0 as they are first met
  std::vector<int64_t> first;    // of each kind: the first tensor of it
  // Tensors that may have no values to read, or no sizes: everything but plain strided ones with
  // their memory. Those whose sizes only Python can tell are a kind each.
  std::vector<int64_t> odd;
};

// A tensor may dispatch to Python: the GIL must be held.
LayoutKinds layout_kinds(const std::vector<at::Tensor>& tensors);

}  // namespace pyparam
