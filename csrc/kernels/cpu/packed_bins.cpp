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

// Reads one run, calling fn(bin, count) for each bin; what lies below limits is added to `below`.
template <typename Fn>
void read_run(const uint8_t* at, BelowLimits& below, const Fn& fn) {
  for (int i = 0; i < kLimits; ++i) {
    if (!is_bin_edge(rounding_limit(i))) below[static_cast<size_t>(i)] += number_at(at);
  }
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
    read_run(run, below_, [&](int bin, int64_t count) {
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
  const auto& place = from_.places_[static_cast<size_t>(row)];
  bins_.clear();
  counts_.clear();
  below_ = {};
  read_run(from_.parts_[place.part].data() + place.begin, below_, [&](int bin, int64_t count) {
    bins_.push_back(bin);
    counts_.push_back(count);
  });
  return {bins_.data(), counts_.data(), static_cast<int64_t>(bins_.size())};
}

void BinReader::below(int first, int count, int64_t* out) const {
  for (int i = first; i < first + count; ++i) {
    const uint32_t limit = rounding_limit(i);
    int64_t number = below_[static_cast<size_t>(i)];
    if (is_bin_edge(limit)) {
      // The bins of magnitudes below an edge are neighbours, those of zero in their middle.
      const int magnitude = static_cast<int>(limit >> kBinShift);
      const auto begin = std::lower_bound(bins_.begin(), bins_.end(), kZeroBin - magnitude);
      const auto end = std::lower_bound(begin, bins_.end(), kZeroBin + magnitude);
      number = 0;
      for (auto at = begin - bins_.begin(); at < end - bins_.begin(); ++at)
        number += counts_[static_cast<size_t>(at)];
    }
    out[i - first] = number;
  }
}

}  // namespace pyparam::cpu
