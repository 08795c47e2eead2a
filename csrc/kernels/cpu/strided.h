// The elements of a strided tensor in logical order, as runs of equal steps.
#pragma once

#include <c10/util/ArrayRef.h>
#include <c10/util/SmallVector.h>

#include <algorithm>
#include <cstdint>

namespace pyparam::cpu {

// Sizes and byte strides with dimensions of one element dropped and neighbours merged where they
// are one run.
class Odometer {
 public:
  Odometer(c10::IntArrayRef sizes, c10::IntArrayRef strides, int64_t itemsize) {
    for (size_t d = 0; d < sizes.size(); ++d) {
      if (sizes[d] == 1) continue;
      const int64_t step = strides[d] * itemsize;
      if (!sizes_.empty() && steps_.back() == step * sizes[d]) {
        sizes_.back() *= sizes[d];
        steps_.back() = step;
      } else {
        sizes_.push_back(sizes[d]);
        steps_.push_back(step);
      }
    }
    if (sizes_.empty()) {
      sizes_.push_back(1);
      steps_.push_back(itemsize);
    }
  }

  // Calls fn(byte offset, step, count) for the runs that make up elements [begin, begin + length).
  template <typename Fn>
  void runs(int64_t begin, int64_t length, const Fn& fn) const {
    const auto dims = static_cast<int64_t>(sizes_.size());
    c10::SmallVector<int64_t, 6> at(dims, 0);
    int64_t offset = 0;
    for (int64_t d = dims - 1, rest = begin; d >= 0; --d) {
      at[d] = rest % sizes_[d];
      rest /= sizes_[d];
      offset += at[d] * steps_[d];
    }
    const int64_t inner = dims - 1;
    while (length > 0) {
      const int64_t count = std::min(length, sizes_[inner] - at[inner]);
      fn(offset, steps_[inner], count);
      length -= count;
      at[inner] += count;
      offset += count * steps_[inner];
      for (int64_t d = inner; d > 0 && at[d] == sizes_[d]; --d) {
        offset += steps_[d - 1] - at[d] * steps_[d];
        at[d] = 0;
        ++at[d - 1];
      }
    }
  }

 private:
  c10::SmallVector<int64_t, 6> sizes_;
  c10::SmallVector<int64_t, 6> steps_;
};

}  // namespace pyparam::cpu
