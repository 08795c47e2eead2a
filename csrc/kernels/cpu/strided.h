// The elements of a strided tensor in logical order, as runs of equal steps and as blocks to
// transpose.
#pragma once

#include <c10/util/ArrayRef.h>
#include <c10/util/SmallVector.h>

#include <algorithm>
#include <cstdint>

namespace pyparam::cpu {

// rows × columns elements: element (r, c) lies at offset + r * row_step + c * column_step bytes in
// the tensor, and r * pitch + c elements after `position` in logical order. Rows are closer
// together than columns.
struct StridedBlock {
  int64_t offset;
  int64_t rows, row_step;
  int64_t columns, column_step;
  int64_t position, pitch;
};

// Sizes and byte steps with dimensions of one element dropped and neighbours merged where they are
// one run.
class Odometer {
 public:
  Odometer(c10::IntArrayRef sizes, c10::IntArrayRef strides, int64_t itemsize)
      : itemsize_(itemsize) {
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
    choose_rows();
  }

  // Whether all elements are one run without gaps.
  bool dense() const { return sizes_.size() == 1 && steps_[0] == itemsize_; }

  // Makes up elements [begin, begin + length) of blocks, where the last dimension steps far and
  // another one near, and else of runs: run(position, offset, step, count). Positions count from
  // `begin`.
  template <typename RunFn, typename BlockFn>
  void walk(int64_t begin, int64_t length, const RunFn& run, const BlockFn& block) const {
    if (rows_ < 0) return runs(begin, length, 0, run);
    const int64_t end = begin + length;
    for (int64_t at = begin; at < end;) {
      // To the next whole row, then as many whole rows as this dimension and the range have.
      const int64_t row = at / pitch_;
      const int64_t whole = std::min((end - at) / pitch_, sizes_[rows_] - row % sizes_[rows_]);
      if (at % pitch_ != 0 || whole == 0) {
        const int64_t stop = std::min(end, (row + 1) * pitch_);
        runs(at, stop - at, at - begin, run);
        at = stop;
        continue;
      }
      const auto last = sizes_.size() - 1;
      const int64_t origin = offset_of(at);
      // The dimensions between the rows and the last, one block each.
      for (int64_t between = 0; between < pitch_; between += sizes_[last]) {
        block(StridedBlock{origin + offset_of(between), whole, steps_[rows_], sizes_[last],
                           steps_[last], at - begin + between, pitch_});
      }
      at += whole * pitch_;
    }
  }

 private:
  // The dimension with the smallest step, if it is smaller than the last one's.
  void choose_rows() {
    const auto last = static_cast<int64_t>(sizes_.size()) - 1;
    if (steps_[last] <= itemsize_) return;
    for (int64_t d = last - 1; d >= 0; --d) {
      if (steps_[d] < steps_[last] && (rows_ < 0 || steps_[d] < steps_[rows_])) rows_ = d;
    }
    for (int64_t d = last; rows_ >= 0 && d > rows_; --d) pitch_ *= sizes_[d];
  }

  int64_t offset_of(int64_t element) const {
    int64_t offset = 0;
    for (auto d = static_cast<int64_t>(sizes_.size()) - 1; d >= 0; --d) {
      offset += element % sizes_[d] * steps_[d];
      element /= sizes_[d];
    }
    return offset;
  }

  template <typename RunFn>
  void runs(int64_t begin, int64_t length, int64_t position, const RunFn& run) const {
    const auto dims = static_cast<int64_t>(sizes_.size());
    int64_t at[64];  // more dimensions of two or more elements than a tensor can have
    int64_t offset = 0;
    for (int64_t d = dims - 1, rest = begin; d >= 0; --d) {
      at[d] = rest % sizes_[d];
      rest /= sizes_[d];
      offset += at[d] * steps_[d];
    }
    const int64_t inner = dims - 1;
    while (length > 0) {
      const int64_t count = std::min(length, sizes_[inner] - at[inner]);
      run(position, offset, steps_[inner], count);
      length -= count;
      position += count;
      at[inner] += count;
      offset += count * steps_[inner];
      for (int64_t d = inner; d > 0 && at[d] == sizes_[d]; --d) {
        offset += steps_[d - 1] - at[d] * steps_[d];
        at[d] = 0;
        ++at[d - 1];
      }
    }
  }

  c10::SmallVector<int64_t, 6> sizes_;
  c10::SmallVector<int64_t, 6> steps_;
  int64_t itemsize_;
  int64_t rows_ = -1;  // the dimension to transpose with the last, if any
  int64_t pitch_ = 1;  // elements from one of its rows to the next, in logical order
};

}  // namespace pyparam::cpu
