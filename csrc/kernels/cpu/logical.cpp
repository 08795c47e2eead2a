#include "kernels/cpu/logical.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace pyparam::cpu {
namespace {

// Columns copied for all rows before the next ones, so that a transposed matrix uses each cache
// line it touches.
constexpr int64_t kTile = 32;

template <int64_t kSize>
void copy_run(char* to, const char* from, int64_t step, int64_t count) {
  for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * kSize, from + i * step, kSize);
}

// `count` elements that lie `step` bytes apart, to a dense place.
void copy_run(int64_t itemsize, char* to, const char* from, int64_t step, int64_t count) {
  if (step == itemsize) {
    std::memcpy(to, from, static_cast<size_t>(count * itemsize));
    return;
  }
  switch (itemsize) {
    case 1:
      return copy_run<1>(to, from, step, count);
    case 2:
      return copy_run<2>(to, from, step, count);
    case 4:
      return copy_run<4>(to, from, step, count);
    case 8:
      return copy_run<8>(to, from, step, count);
    case 16:
      return copy_run<16>(to, from, step, count);
    default:
      for (int64_t i = 0; i < count; ++i)
        std::memcpy(to + i * itemsize, from + i * step, static_cast<size_t>(itemsize));
  }
}

}  // namespace

LogicalView::LogicalView(const at::Tensor& tensor)
    : data_(static_cast<const char*>(tensor.const_data_ptr())),
      itemsize_(static_cast<int64_t>(tensor.itemsize())) {
  if (tensor.is_contiguous() || tensor.numel() == 0) return;
  Odometer odometer(tensor.sizes(), tensor.strides(), itemsize_);
  if (!odometer.dense()) odometer_ = std::move(odometer);
}

const char* LogicalView::read(int64_t begin, int64_t length, char* buffer) const {
  if (contiguous()) return data_ + begin * itemsize_;
  const auto run = [&](int64_t position, int64_t offset, int64_t step, int64_t count) {
    copy_run(itemsize_, buffer + position * itemsize_, data_ + offset, step, count);
  };
  const auto block = [&](const StridedBlock& b) {
    for (int64_t first = 0; first < b.columns; first += kTile) {
      const int64_t columns = std::min(kTile, b.columns - first);
      for (int64_t r = 0; r < b.rows; ++r) {
        copy_run(itemsize_, buffer + (b.position + r * b.pitch + first) * itemsize_,
                 data_ + b.offset + r * b.row_step + first * b.column_step, b.column_step, columns);
      }
    }
  };
  odometer_->walk(begin, length, run, block);
  return buffer;
}

}  // namespace pyparam::cpu
