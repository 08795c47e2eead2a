// Shapes, dtypes and devices of tensors as columns, which outlive the tensors' memory.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace pyparam {

// In blocks of so many tensors each, the last one of fewer, which several threads may fill.
class LayoutColumns {
 public:
  static constexpr size_t kBlock = 4096;

  class Block {
   public:
    void reserve(size_t tensors) {
      ends_.reserve(tensors);
      dtypes_.reserve(tensors);
      devices_.reserve(tensors);
      dims_.reserve(2 * tensors);
    }
    void append(const at::Tensor& tensor) {
      for (const int64_t size : tensor.sizes()) dims_.push_back(size);
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

  // Blocks for so many tensors, to be filled.
  void resize(size_t tensors) { blocks_.resize((tensors + kBlock - 1) / kBlock); }
  Block& block(size_t i) { return blocks_[i]; }

  void append(const at::Tensor& tensor) {
    if (blocks_.empty() || blocks_.back().size() == kBlock) blocks_.emplace_back();
    blocks_.back().append(tensor);
  }

  size_t size() const {
    return blocks_.empty() ? 0 : (blocks_.size() - 1) * kBlock + blocks_.back().size();
  }
  std::vector<int64_t> shape(size_t i) const { return blocks_.at(i / kBlock).shape(i % kBlock); }
  at::ScalarType dtype(size_t i) const { return blocks_.at(i / kBlock).dtype(i % kBlock); }
  at::Device device(size_t i) const { return blocks_.at(i / kBlock).device(i % kBlock); }

 private:
  std::vector<Block> blocks_;
};

}  // namespace pyparam
