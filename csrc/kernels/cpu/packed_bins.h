// Histograms by bits in about two bytes a bin: of very many small tensors they would else take more
// memory than the tensors.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/histogram.h"

namespace pyparam::cpu {

// How many values lie below each rounding limit (see histogram.h), zeros among them.
using BelowLimits = std::array<int64_t, kLimits>;

// One row's histogram; bins ascend.
struct SparseRow {
  const int32_t* bins = nullptr;
  const int64_t* counts = nullptr;
  int64_t size = 0;
};

// Rows' histograms, or parts of them, one after another as numbers of 7 bits a byte, the low ones
// first: counts below the limits that are no edges of bins, then each bin as its distance to the
// one before (of the first to -1) with its count, then 0.
class BinWriter {
 public:
  // `below` at limits that are edges of bins is passed over.
  void begin(int64_t row, const BelowLimits& below);
  // Bins of a row ascend.
  void add(int bin, int64_t count) {
    number(static_cast<uint64_t>(bin - last_));
    number(static_cast<uint64_t>(count));
    last_ = bin;
  }
  void end() { bytes_.push_back(0); }

 private:
  friend class PackedBins;
  struct Run {
    int64_t row;
    uint64_t begin;
  };

  void number(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<uint8_t>(value | 0x80));
    bytes_.push_back(static_cast<uint8_t>(value));
  }

  std::vector<uint8_t> bytes_;
  std::vector<Run> runs_;
  int last_ = -1;
};

// The histograms of all rows, and behind them that of everything.
class PackedBins {
 public:
  // A row without a part has no values.
  PackedBins(std::vector<BinWriter> parts, int64_t rows);

  // That of everything is one of them.
  int64_t rows() const { return static_cast<int64_t>(places_.size()); }
  // Bins of all of them.
  int64_t entries() const { return entries_; }
  // Memory held.
  size_t bytes() const;

 private:
  friend class BinReader;
  struct Place {
    uint32_t part = 0;  // 0: no values
    uint64_t begin = 0;
  };

  std::vector<std::vector<uint8_t>> parts_;  // the first is of rows without values
  std::vector<Place> places_;
  int64_t entries_ = 0;
};

// Reads them row by row, into memory of its own.
class BinReader {
 public:
  explicit BinReader(const PackedBins& from) : from_(from) {}

  int64_t rows() const { return from_.rows(); }
  // Stays as it is until the next call.
  SparseRow operator()(int64_t row);
  // Counts of a row below limits [first, first + count).
  void below(int64_t row, int first, int count, int64_t* out) const;

 private:
  const uint8_t* run_of(int64_t row) const {
    const auto& place = from_.places_[static_cast<size_t>(row)];
    return from_.parts_[place.part].data() + place.begin;
  }

  const PackedBins& from_;
  std::vector<int32_t> bins_;
  std::vector<int64_t> counts_;
};

}  // namespace pyparam::cpu
