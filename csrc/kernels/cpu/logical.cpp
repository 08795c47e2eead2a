#include "kernels/cpu/logical.h"

#include <algorithm>
#include <cstring>

namespace pyparam::cpu {
namespace {

// Columns copied for all rows before the next ones, so that a transposed matrix uses each cache
// line it touches.
constexpr int64_t kTile = 32;

// rows x columns elements, from a strided place to a dense one.
template <int64_t kSize>
void copy_rows(char* to, const char* from, int64_t rows, int64_t row_stride, int64_t columns,
               int64_t stride) {
  if (stride == kSize) {
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(to + r * columns * kSize, from + r * row_stride,
                  static_cast<size_t>(columns * kSize));
    }
    return;
  }
  for (int64_t first = 0; first < columns; first += kTile) {
    const int64_t last = std::min(columns, first + kTile);
    for (int64_t r = 0; r < rows; ++r) {
      char* row = to + r * columns * kSize;
      const char* source = from + r * row_stride;
      for (int64_t c = first; c < last; ++c)
        std::memcpy(row + c * kSize, source + c * stride, kSize);
    }
  }
}

void copy_rows(int64_t itemsize, char* to, const char* from, int64_t rows, int64_t row_stride,
               int64_t columns, int64_t stride) {
  switch (itemsize) {
    case 1:
      return copy_rows<1>(to, from, rows, row_stride, columns, stride);
    case 2:
      return copy_rows<2>(to, from, rows, row_stride, columns, stride);
    case 4:
      return copy_rows<4>(to, from, rows, row_stride, columns, stride);
    case 8:
      return copy_rows<8>(to, from, rows, row_stride, columns, stride);
    case 16:
      return copy_rows<16>(to, from, rows, row_stride, columns, stride);
    default:
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          std::memcpy(to + (r * columns + c) * itemsize, from + r * row_stride + c * stride,
                      static_cast<size_t>(itemsize));
        }
      }
  }
}

}  // namespace

LogicalView::LogicalView(const at::Tensor& tensor)
    : data_(static_cast<const char*>(tensor.const_data_ptr())),
      itemsize_(static_cast<int64_t>(tensor.itemsize())) {
  if (tensor.is_contiguous() || tensor.numel() == 0) return;
  const auto sizes = tensor.sizes();
  const auto strides = tensor.strides();
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] == 1) continue;
    const int64_t stride = strides[d] * itemsize_;
    if (!sizes_.empty() && strides_.back() == stride * sizes[d]) {
      sizes_.back() *= sizes[d];
      strides_.back() = stride;
    } else {
      sizes_.push_back(sizes[d]);
      strides_.push_back(stride);
    }
  }
  if (sizes_.size() == 1 && strides_[0] == itemsize_) sizes_.clear();
}

const char* LogicalView::read(int64_t begin, int64_t length, char* buffer) const {
  if (contiguous()) return data_ + begin * itemsize_;
  const size_t dims = sizes_.size();
  const int64_t columns = sizes_[dims - 1];
  const int64_t rows_at_most = dims > 1 ? sizes_[dims - 2] : 1;
  const int64_t row_stride = dims > 1 ? strides_[dims - 2] : 0;
  char* to = buffer;
  while (length > 0) {
    // Where the element `begin` lies, and how far the last two dimensions go on from there.
    const int64_t column = begin % columns;
    int64_t rest = begin / columns;
    const int64_t row = rest % rows_at_most;
    const char* from = data_ + column * strides_[dims - 1];
    for (size_t d = dims - 1; d-- > 0; rest /= sizes_[d]) from += rest % sizes_[d] * strides_[d];
    const bool whole_rows = column == 0 && length >= columns;
    const int64_t rows = whole_rows ? std::min(rows_at_most - row, length / columns) : 1;
    const int64_t run = whole_rows ? columns : std::min(columns - column, length);
    copy_rows(itemsize_, to, from, rows, row_stride, run, strides_[dims - 1]);
    to += rows * run * itemsize_;
    begin += rows * run;
    length -= rows * run;
  }
  return buffer;
}

}  // namespace pyparam::cpu
