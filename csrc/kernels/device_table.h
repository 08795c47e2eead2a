// The rows that a kernel gets of a list of tensors. Plain C++: the CPU-only build has it too, and
// the tests run kernel bodies over what it makes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/chunks.h"
#include "kernels/device_rows.h"

namespace pyparam {

// Several columns in one run of bytes, each aligned for 16-byte loads.
class ColumnLayout {
 public:
  // Where a column of `count` rows begins.
  template <typename Row>
  int64_t add(int64_t count) {
    const int64_t at = bytes_;
    bytes_ += (count * static_cast<int64_t>(sizeof(Row)) + 15) / 16 * 16;
    return at;
  }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

// Writes rows to where their column begins.
template <typename Row>
void put_rows(char* bytes, int64_t at, const std::vector<Row>& rows) {
  if (!rows.empty()) std::memcpy(bytes + at, rows.data(), rows.size() * sizeof(Row));
}

// The table of a list. Chunks come from the planner.
class DeviceTable {
 public:
  // Tensors must be strided, on one device, without conjugate or negative bit; the caller has
  // checked that. Raises where a tensor's storage was freed or is too small.
  DeviceTable(const char* verb, at::TensorList tensors, int64_t chunk_elements);

  const std::vector<TensorRow>& tensors() const { return tensors_; }
  const std::vector<ExtentRow>& extents() const { return extents_; }
  int64_t tensor_count() const { return static_cast<int64_t>(tensors_.size()) - 1; }
  int64_t chunk_count() const { return tensors_.back().first_chunk; }
  int64_t numel() const { return tensors_.back().position; }

  // Adds the columns to a layout, once.
  void add_to(ColumnLayout& layout);
  // Writes the rows to bytes laid out so.
  void write(char* bytes) const;
  // The rows as a reader finds them, where the bytes begin at `bytes`.
  TableView view(const char* bytes) const;

 private:
  std::vector<TensorRow> tensors_;  // and the sums
  std::vector<ExtentRow> extents_;
  ChunkPlan plan_;
  int64_t tensors_at_ = 0, extents_at_ = 0, chunks_at_ = 0;
};

// Strides of a tensor as rows: none where it is dense.
void append_extents(std::vector<ExtentRow>& extents, at::IntArrayRef sizes,
                    at::IntArrayRef strides);

}  // namespace pyparam
