// The measuring ops on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/exact.h"
#include "kernels/measure.h"

namespace pyparam {

namespace cpu {
class ElementList;
class PackedBins;
struct ElementNotes;
}  // namespace cpu

struct Measured {
  at::Tensor values, counts;  // [rows + 1, kValueColumns], [rows + 1, kCountColumns]
  at::Tensor below, offsets, bins, bin_counts;  // of histograms; undefined without them
  std::shared_ptr<cpu::PackedBins> packed;      // in place of those four
};

// Values and counts of so many rows and the total, not written yet.
Measured empty_measured(int64_t rows, at::Device device);

// Address and size in bytes of files mapped into memory privately and never written to, whose pages
// may be given back after reading: the system reads them again when they are next touched.
using FileMaps = std::vector<std::pair<uintptr_t, size_t>>;

// What the ops `measure` and `measure_histogram` compute, giving back the pages of `maps` along the
// way. `numbers`, unless null, gets the exact sums of each row.
Measured measure_tensors(at::TensorList tensors, bool histogram, const FileMaps& maps,
                         std::vector<exact::Numbers>* numbers = nullptr);
// The same of tensors that were read into a list already; histograms stay packed.
Measured measure_elements(const cpu::ElementList& list, bool histogram, const FileMaps& maps,
                          std::vector<exact::Numbers>* numbers = nullptr);

// The same of a list of ordinary tensors (cpu::OrdinaryReader), whose tensors of few values are
// measured while the list is read.
class OrdinaryMeasuring {
 public:
  // All given live as long.
  OrdinaryMeasuring(at::TensorList tensors, const cpu::ElementNotes& notes, bool histogram,
                    const FileMaps& maps);
  ~OrdinaryMeasuring();

  // False where some tensor is not ordinary, or is not to be read: then that was all, and `notes`
  // are not to be used.
  bool read();
  // Measures the others, once.
  Measured finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Bytes read so far and bytes in all of the measuring under way in this process, or of the last;
// for a progress bar, which does not mind that two at once count together.
std::pair<int64_t, int64_t> measure_progress();

}  // namespace pyparam
