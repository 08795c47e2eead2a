// Shapes, dtypes and devices of tensors as columns, which outlive the tensors' memory.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <vector>

#include "kernels/kept.h"
#include "kernels/macros.h"

namespace pyparam {

// One entry a tensor. Several threads may fill them, each whole blocks.
class LayoutColumns {
 public:
  static constexpr size_t kBlock = 1024;

  // Entries for so many tensors, to be set.
  void resize(size_t tensors) {
    entries_.resize(tensors);
    larger_.resize((tensors + kBlock - 1) / kBlock);
  }
  PYPARAM_INLINE void set(size_t i, at::IntArrayRef sizes, at::ScalarType dtype,
                          at::Device device) {
    Entry& e = entries_[i];
    e.dtype = dtype;
    e.device = device.type();
    e.index = device.index();
    e.dims = sizes.size();
    if (sizes.size() <= kFew) {
      for (size_t d = 0; d < sizes.size(); ++d) e.sizes[d] = sizes[d];
    } else {
      std::vector<int64_t>& larger = larger_[i / kBlock];
      e.sizes[0] = static_cast<int64_t>(larger.size());
      larger.insert(larger.end(), sizes.begin(), sizes.end());
    }
  }

  void append(const at::Tensor& tensor) {
    resize(size() + 1);
    set(size() - 1, tensor.sizes(), tensor.scalar_type(), tensor.device());
  }

  size_t size() const { return entries_.size(); }
  std::vector<int64_t> shape(size_t i) const {
    const Entry& e = entries_.at(i);
    const int64_t* begin = e.dims <= kFew ? e.sizes : larger_.at(i / kBlock).data() + e.sizes[0];
    return {begin, begin + e.dims};
  }
  at::ScalarType dtype(size_t i) const { return entries_.at(i).dtype; }
  at::Device device(size_t i) const { return {entries_.at(i).device, entries_.at(i).index}; }

 private:
  static constexpr size_t kFew = 2;
  struct Entry {
    int64_t sizes[kFew];  // or where they begin among the block's `larger_`
    uint32_t dims;
    at::ScalarType dtype;
    at::DeviceType device;
    at::DeviceIndex index;
  };

  std::vector<Entry, Kept<Entry>> entries_;
  std::vector<std::vector<int64_t>> larger_;  // sizes of a block's tensors of more dimensions
};

}  // namespace pyparam
