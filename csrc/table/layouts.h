// Shapes, dtypes and devices of tensors as columns, which outlive the tensors' memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace pyparam {

class LayoutColumns {
 public:
  void reserve(size_t tensors) {
    ends_.reserve(tensors);
    dtypes_.reserve(tensors);
    devices_.reserve(tensors);
    dims_.reserve(2 * tensors);
  }
  void append(const at::Tensor& tensor) {
    const auto sizes = tensor.sizes();
    dims_.insert(dims_.end(), sizes.begin(), sizes.end());
    ends_.push_back(dims_.size());
    dtypes_.push_back(tensor.scalar_type());
    devices_.push_back(tensor.device());
  }

  size_t size() const { return ends_.size(); }
  std::vector<int64_t> shape(size_t i) const {
    const size_t begin = i == 0 ? 0 : ends_.at(i - 1);
    return {dims_.begin() + static_cast<int64_t>(begin),
            dims_.begin() + static_cast<int64_t>(ends_.at(i))};
  }
  at::ScalarType dtype(size_t i) const { return dtypes_.at(i); }
  at::Device device(size_t i) const { return devices_.at(i); }

 private:
  std::vector<int64_t> dims_;
  std::vector<size_t> ends_;
  std::vector<at::ScalarType> dtypes_;
  std::vector<at::Device> devices_;
};

}  // namespace pyparam
