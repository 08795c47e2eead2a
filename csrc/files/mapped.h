// Tensors over a file in memory, made without a Python object each.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace pyparam::files {

// The bytes of a mapped file, which stay mapped as long as `owner` or a tensor over them lives.
class MappedBytes {
 public:
  MappedBytes(void* data, size_t size, std::shared_ptr<void> owner);

  size_t size() const { return size_; }
  const char* data() const { return data_; }

  // A contiguous tensor whose storage is its own bytes, from `begin`. Where they are not aligned as
  // the dtype needs it is a copy; an empty one lies over no file. Throws std::out_of_range where
  // the bytes are not all inside.
  at::Tensor tensor(uint64_t begin, at::ScalarType dtype, at::IntArrayRef shape) const;

 private:
  // What every tensor's storage counts itself in: one addition a tensor, and no allocation.
  struct Hold final : c10::intrusive_ptr_target {
    explicit Hold(std::shared_ptr<void> from) : owner(std::move(from)) {}

    std::shared_ptr<void> owner;
  };

  static void drop(void* hold) { c10::raw::intrusive_ptr::decref(static_cast<Hold*>(hold)); }

  char* data_;
  size_t size_;
  c10::intrusive_ptr<Hold> hold_;
};

// What a file's header says of its tensors, as columns; all are contiguous.
struct MappedEntries {
  std::vector<uint64_t> begins;  // bytes from the start of the file
  std::vector<at::ScalarType> dtypes;
  std::vector<int64_t> extents;    // of all shapes, one after the other
  std::vector<size_t> shape_ends;  // where each entry's extents end

  size_t size() const { return begins.size(); }
  void append(uint64_t begin, at::ScalarType dtype, at::IntArrayRef shape);
  at::IntArrayRef shape(size_t entry) const;
};

// Rows that are each one entry of several files. A row's tensor is made when somebody asks for it:
// of a file with very many, tensors would take more memory than all else that is known of it.
class MappedRows {
 public:
  struct Part {
    std::shared_ptr<const MappedEntries> entries;
    std::shared_ptr<const MappedBytes> bytes;
  };

  // Row i is entry `places[i] / parts` of part `places[i] % parts`. Throws std::out_of_range for a
  // place that is not there.
  MappedRows(std::vector<Part> parts, std::vector<uint64_t> places);

  size_t size() const { return places_.size(); }
  at::ScalarType dtype(size_t row) const { return at(row).first->dtypes[at(row).second]; }
  at::IntArrayRef shape(size_t row) const { return at(row).first->shape(at(row).second); }
  at::Tensor tensor(size_t row) const;
  // Where its bytes are; null where it has none, or is a copy of what is not aligned.
  const char* data(size_t row) const;
  // Whether every row with elements lies in its file as it is: no two tensors of a row differ then.
  bool in_place() const;
  MappedRows take(const std::vector<int64_t>& rows) const;

 private:
  std::pair<const MappedEntries*, size_t> at(size_t row) const {
    return {parts_[places_[row] % parts_.size()].entries.get(), places_[row] / parts_.size()};
  }

  std::vector<Part> parts_;
  std::vector<uint64_t> places_;
};

}  // namespace pyparam::files
