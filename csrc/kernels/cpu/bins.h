// Histograms by bits of many tensors, counted on several threads.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "kernels/cpu/elements.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/packed_bins.h"
#include "kernels/histogram.h"

namespace pyparam::cpu {

// Counts on one thread. Counts are integers, so it does not matter which thread counts what.
class BinCounter {
 public:
  // A block of the given row, with the statistics it has been found to have and their range of
  // magnitudes, if known. Of float64 values, `narrowed` are the nearest float32, and those that
  // round to an infinity count as the largest float32.
  void take(int64_t row, const BlockValues& block, const float* narrowed, int64_t n,
            const Statistics& of_block, MagnitudeRange range, const LaneKernels& lanes);
  // What was counted; nothing more is.
  BinWriter finished() {
    flush();
    return std::move(written_);
  }

 private:
  // Four tables in turn: equal values one after another would wait for each other in one.
  static constexpr int kTables = 2;
  static constexpr int64_t kMostPending = int64_t{1} << 30;  // a table's count is 32 bits
  static constexpr int64_t kFew = 1024;                      // sorted rather than tabled

  void take_few(int64_t row, const float* x, int64_t n, const BelowLimits& below);
  void flush();

  // Two in turn: equal values one after another would wait for each other in one.
  std::unique_ptr<uint32_t[]> tables_;
  int64_t row_ = -1;
  int64_t pending_ = 0;
  int64_t minus_zeros_ = 0;
  MagnitudeRange range_;
  BelowLimits below_{};
  BinWriter written_;
};

}  // namespace pyparam::cpu
