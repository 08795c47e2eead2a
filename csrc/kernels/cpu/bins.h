// Histograms by bits of many tensors: counting on several threads, and the sparse result.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/cpu/elements.h"
#include "kernels/cpu/lanes.h"
#include "kernels/histogram.h"

namespace pyparam::cpu {

// How many values lie below each rounding limit (see histogram.h), zeros among them. While
// counting, limits that are edges of bins are left at zero.
using BelowLimits = std::array<int64_t, kLimits>;

// Sparse histograms one after another: row r has entries offsets[r] .. offsets[r + 1], bins
// ascending.
struct SparseBins {
  std::vector<int64_t> offsets;
  std::vector<int32_t> bins;
  std::vector<int64_t> counts;
  std::vector<BelowLimits> below;
};

// Part of the histogram of one row, as entries begin .. end of the counter's columns.
struct BinRun {
  int64_t row;
  int64_t begin;
  int64_t end;
  BelowLimits below;
};

// Counts on one thread. Counts are integers, so it does not matter which thread counts what.
class BinCounter {
 public:
  // A block of the given row, with the statistics it has been found to have and their range of
  // magnitudes, if known. Of float64 values, `narrowed` are the nearest float32, and those that
  // round to an infinity count as the largest float32.
  void take(int64_t row, const BlockValues& block, const float* narrowed, int64_t n,
            const Statistics& of_block, MagnitudeRange range, const LaneKernels& lanes);
  void flush();

  const std::vector<BinRun>& runs() const { return runs_; }
  const std::vector<int32_t>& bins() const { return bins_; }
  const std::vector<int64_t>& counts() const { return counts_; }

 private:
  // Four tables in turn: equal values one after another would wait for each other in one.
  static constexpr int kTables = 2;
  static constexpr int64_t kMostPending = int64_t{1} << 30;  // a table's count is 32 bits
  static constexpr int64_t kFew = 1024;                      // sorted rather than tabled

  void take_few(int64_t row, const float* x, int64_t n, const BelowLimits& below);
  void emit(int bin, int64_t count);

  // Two in turn: equal values one after another would wait for each other in one.
  std::unique_ptr<uint32_t[]> tables_;
  int64_t row_ = -1;
  int64_t pending_ = 0;
  int64_t minus_zeros_ = 0;
  MagnitudeRange range_;
  BelowLimits below_{};
  std::vector<BinRun> runs_;
  std::vector<int32_t> bins_;
  std::vector<int64_t> counts_;
};

// All rows' histograms from all counters, and behind them that of everything.
SparseBins collect(const std::vector<BinCounter>& counters, int64_t rows);

}  // namespace pyparam::cpu
