// Tensors as plain data that kernels can read in pieces: a pointer where memory order will do,
// strides where not.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "kernels/chunks.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/logical.h"
#include "kernels/kept.h"
#include "table/apart.h"
#include "table/layouts.h"
#include "table/prefetch.h"

namespace pyparam::cpu {

// What else is written down of each tensor while a list is read.
struct ElementNotes {
  LayoutColumns* layouts = nullptr;
  ApartCheck* memory = nullptr;
};

// Keeps what it reads from alive. Throws c10::ValueError or c10::TypeError that speaks of
// `tensors[i]` for a tensor without readable values: sparse, quantized, nested, meta, a packed
// type, on another device, of a storage that was freed or shrunk.
class ElementList {
 public:
  ElementList(const char* op, at::TensorList tensors);

  using Notes = ElementNotes;
  // Of ordinary tensors that are made for it one by one, and let go: the memory that they lie over
  // is somebody else's to keep. None where some tensor is another one, or not to be read; `notes`
  // are not to be used then.
  static std::optional<ElementList> of_made(size_t count,
                                            const std::function<at::Tensor(size_t)>& make,
                                            const ElementNotes& notes);

  size_t size() const { return elements_.size(); }
  const Elements& operator[](size_t i) const { return elements_[i]; }
  const Elements* data() const { return elements_.data(); }
  // Counts of values, as the chunk planner takes them.
  std::vector<int64_t> numels() const;

  // Asks for the memory of a small piece that is read soon.
  PYPARAM_INLINE void prefetch(const Chunk& chunk) const {
    const Elements& e = elements_[static_cast<size_t>(chunk.tensor)];
    const int64_t bytes = chunk.length * value_size(e.format);
    if (bytes <= 4096) prefetch_span(e.data + chunk.begin * value_size(e.format), bytes);
  }

  // Values [begin, begin + n) of tensor i as they are stored: a pointer into the tensor where
  // memory is dense, else `buffer`, filled (n <= kBlock values of up to 8 bytes). In complex
  // tensors, begin and n are even.
  const void* stored(size_t i, int64_t begin, int64_t n, void* buffer) const {
    const Elements& e = elements_[i];
    if (e.strided < 0) return e.data + begin * value_size(e.format);
    // A complex number is one element, and two values.
    const int64_t parts = e.is_complex ? 2 : 1;
    return views_[static_cast<size_t>(e.strided)].read(begin / parts, n / parts,
                                                       static_cast<char*>(buffer));
  }

 private:
  friend class OrdinaryReader;
  ElementList() = default;
  bool take_ordinary(size_t i, const at::Tensor& tensor, const ElementNotes& notes);
  bool take_plainest(size_t i, const at::Tensor& tensor);
  void take(const char* op, size_t i, const at::Tensor& tensor);

  std::vector<Elements, Kept<Elements>> elements_;
  std::vector<LogicalView> views_;  // of what is not dense
  std::vector<at::Tensor> resolved_;
};

// All that a verb has to know of a list of ordinary tensors, which is what almost every list is:
// tensors that an op of the dispatcher would bring to the CPU's kernel as they are. They are read a
// few at a time, so that the verb's work on them hides the wait for the memory of the next.
class OrdinaryReader {
 public:
  // What stands in `notes` lives as long.
  OrdinaryReader(at::TensorList tensors, const ElementNotes& notes);

  // Tensors [begin, end), each once: on any thread, all of a block of LayoutColumns on the same
  // one. Asks for the memory of those of few values. False where one of the list, read here or on
  // another thread, is not ordinary or is not to be read: then neither list nor notes are to be
  // used.
  bool read(size_t begin, size_t end);

  // Of which those that were read are there.
  const ElementList& list() const { return list_; }

 private:
  at::TensorList tensors_;
  ElementNotes notes_;
  ElementList list_;
  std::atomic<bool> odd_{false};
};

// Scratch memory of one thread: a block as stored, and the block widened.
struct Scratch {
  alignas(64) char stored[kBlock * 8];
  alignas(64) char widened[kBlock * 8];
  alignas(64) float narrowed[kBlock];
};

// One block of values in the format it is measured in: the other pointer is null.
struct BlockValues {
  const float* floats = nullptr;
  const double* doubles = nullptr;
};
inline BlockValues read_block(const ElementList& list, size_t i, int64_t begin, int64_t n,
                              const LaneKernels& lanes, Scratch& scratch) {
  const Format format = list[i].format;
  const void* stored = list.stored(i, begin, n, scratch.stored);
  BlockValues out;
  if (format == Format::kFloat) {
    out.floats = static_cast<const float*>(stored);
  } else if (format == Format::kDouble) {
    out.doubles = static_cast<const double*>(stored);
  } else {
    lanes.widen(format, stored, n, scratch.widened);
    if (is_double(format)) {
      out.doubles = reinterpret_cast<const double*>(scratch.widened);
    } else {
      out.floats = reinterpret_cast<const float*>(scratch.widened);
    }
  }
  return out;
}

// Throws as ElementList does, for a tensor that is not plain strided memory of this process; of any
// device; or whose elements are not single numbers.
void check_plain(const char* op, size_t i, const at::Tensor& tensor);
void check_values(const char* op, size_t i, const at::Tensor& tensor);
void check_numbers(const char* op, size_t i, const at::Tensor& tensor);

}  // namespace pyparam::cpu
