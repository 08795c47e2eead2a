#include "kernels/cpu/packed_bins.h"

#include <algorithm>
#include <utility>

namespace pyparam::cpu {

namespace {

uint64_t number_at(const uint8_t*& at) {
  uint64_t value = *at & 0x7f;
  for (int shift = 7; *at++ & 0x80; shift += 7) value |= static_cast<uint64_t>(*at & 0x7f) << shift;
  return value;
}

// Adds what a run says of limits that are no edges; its bins follow at what this gives.
const uint8_t* read_limits(const uint8_t* at, BelowLimits& below) {
  for (size_t i = 0; i < kLimits; ++i) {
    if (!is_bin_edge(rounding_limit(static_cast<int>(i))))
      below[i] += static_cast<int64_t>(number_at(at));
  }
  return at;
}

// Calls fn(bin, count) for each bin.
template <typename Fn>
void read_bins(const uint8_t* at, const Fn& fn) {
  int bin = -1;
  while (const auto step = static_cast<int>(number_at(at))) {
    bin += step;
    fn(bin, static_cast<int64_t>(number_at(at)));
  }
}

// Histograms that are put together in a table of all bins.
class Sum {
 public:
  Sum() : table_(kBins) {}

  // Gives how many bins the run has.
  int64_t add(const uint8_t* run) {
    int64_t bins = 0;
    read_bins(read_limits(run, below_), [&](int bin, int64_t count) {
      table_[static_cast<size_t>(bin)] += count;
      ++bins;
    });
    return bins;
  }
  // Writes it as a row, and begins anew. Gives how many bins it has.
  int64_t write(int64_t row, BinWriter& to) {
    int64_t bins = 0;
    to.begin(row, below_);
    for (int bin = 0; bin < kBins; ++bin) {
      int64_t& count = table_[static_cast<size_t>(bin)];
      if (count == 0) continue;
      to.add(bin, std::exchange(count, 0));
      ++bins;
    }
    to.end();
    below_ = {};
    return bins;
  }

 private:
  std::vector<int64_t> table_;
  BelowLimits below_{};
};

}  // namespace

void BinWriter::begin(int64_t row, const BelowLimits& below) {
  runs_.push_back({row, bytes_.size()});
  for (int i = 0; i < kLimits; ++i) {
    if (!is_bin_edge(rounding_limit(i)))
      number(static_cast<uint64_t>(below[static_cast<size_t>(i)]));
  }
  last_ = -1;
}

PackedBins::PackedBins(std::vector<BinWriter> parts, int64_t rows) {
  BinWriter together;
  {
    const BelowLimits none{};
    together.begin(-1, none);
    together.end();
    together.runs_.clear();
  }
  places_.resize(static_cast<size_t>(rows) + 1);
  // Rows of which several threads counted a part.
  std::vector<std::pair<int64_t, const uint8_t*>> again;
  for (size_t p = 0; p < parts.size(); ++p) {
    for (const BinWriter::Run& run : parts[p].runs_) {
      Place& place = places_[static_cast<size_t>(run.row)];
      if (place.part != 0) {
        again.emplace_back(run.row, parts[p].bytes_.data() + run.begin);
      } else {
        place = {static_cast<uint32_t>(p + 1), run.begin};
      }
    }
    std::vector<BinWriter::Run>().swap(parts[p].runs_);
  }
  Sum sum;
  std::sort(again.begin(), again.end());
  for (size_t i = 0; i < again.size();) {
    const int64_t row = again[i].first;
    Place& place = places_[static_cast<size_t>(row)];
    sum.add(parts[place.part - 1].bytes_.data() + place.begin);
    for (; i < again.size() && again[i].first == row; ++i) sum.add(again[i].second);
    place = {0, together.bytes_.size()};
    sum.write(row, together);
  }
  // What was put together stands in the part of rows without values, behind them.
  parts_.reserve(parts.size() + 1);
  parts_.emplace_back();
  for (BinWriter& part : parts) parts_.push_back(std::move(part.bytes_));
  for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
    const Place& place = places_[row];
    const std::vector<uint8_t>& part = place.part == 0 ? together.bytes_ : parts_[place.part];
    entries_ += sum.add(part.data() + place.begin);
  }
  places_[static_cast<size_t>(rows)] = {0, together.bytes_.size()};
  entries_ += sum.write(rows, together);
  parts_.front() = std::move(together.bytes_);
}

size_t PackedBins::bytes() const {
  size_t held = places_.capacity() * sizeof(Place);
  for (const auto& part : parts_) held += part.size();
  return held;
}

SparseRow BinReader::operator()(int64_t row) {
  bins_.clear();
  counts_.clear();
  BelowLimits unused{};
  read_bins(read_limits(run_of(row), unused), [&](int bin, int64_t count) {
    bins_.push_back(bin);
    counts_.push_back(count);
  });
  return {bins_.data(), counts_.data(), static_cast<int64_t>(bins_.size())};
}

void BinReader::below(int64_t row, int first, int count, int64_t* out) const {
  BelowLimits below{};
  const uint8_t* const bins = read_limits(run_of(row), below);
  // Below an edge lie the bins of smaller magnitudes, of both signs.
  int edges = 0;
  size_t limit[kLimits];
  int magnitude[kLimits];
  for (int i = first; i < first + count; ++i) {
    if (!is_bin_edge(rounding_limit(i))) continue;
    limit[edges] = static_cast<size_t>(i);
    magnitude[edges++] = static_cast<int>(rounding_limit(i) >> kBinShift);
  }
  if (edges > 0) {
    read_bins(bins, [&](int bin, int64_t number) {
      const int of_bin = bin >= kZeroBin ? bin - kZeroBin : kZeroBin - 1 - bin;
      for (int e = 0; e < edges; ++e) below[limit[e]] += of_bin < magnitude[e] ? number : 0;
    });
  }
  for (int i = 0; i < count; ++i) out[i] = below[static_cast<size_t>(first + i)];
}

}  // namespace pyparam::cpu
