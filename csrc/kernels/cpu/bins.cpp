#include "kernels/cpu/bins.h"

#include <algorithm>
#include <cstring>

namespace pyparam::cpu {

namespace {

constexpr uint32_t kInfinityBits = 0x7f800000u;
constexpr uint32_t kLargestBits = 0x7f7fffffu;

int64_t count_minus_zeros(const float* x, int64_t n) {
  int32_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += bit_cast<uint32_t>(x[i]) == 0x80000000u;
  return count;
}

// The float32 bits to count a value under, or false for NaNs and infinities.
bool countable(const float* x, const double* doubles, int64_t i, uint32_t* bits) {
  *bits = bit_cast<uint32_t>(x[i]);
  if ((*bits & 0x7fffffffu) < kInfinityBits) return true;
  if (doubles == nullptr || !is_finite(doubles[i])) return false;
  *bits = (*bits & 0x80000000u) | kLargestBits;
  return true;
}

}  // namespace

void BinCounter::emit(int bin, int64_t count) {
  if (count == 0) return;
  bins_.push_back(bin);
  counts_.push_back(count);
}

void BinCounter::take(int64_t row, const BlockValues& block, const float* narrowed, int64_t n,
                      const Statistics& of_block, const LaneKernels& lanes) {
  const float* x = block.floats != nullptr ? block.floats : narrowed;
  const bool exact = block.floats != nullptr;
  const MagnitudeRange range = lanes.magnitude_range(x, n);
  const int64_t zeros = exact ? of_block.zeros : lanes.count_below(x, n, 1);
  const int64_t finite = exact ? of_block.finite : lanes.count_below(x, n, kInfinityBits);
  BelowLimits below;
  for (int i = 0; i < kLimits; ++i) {
    const uint32_t limit = rounding_limit(i);
    if (limit <= range.smallest) {
      below[i] = zeros;
    } else if (limit > range.largest) {
      below[i] = finite;
    } else {
      below[i] = lanes.count_below(x, n, limit);
    }
  }
  const bool plain = finite == n;
  if (row != row_ && n < kFew && plain) {
    flush();
    take_few(row, x, n, below);
    return;
  }
  if (row != row_ || pending_ > kMostPending) flush();
  row_ = row;
  pending_ += n;
  for (int i = 0; i < kLimits; ++i) below_[i] += below[i];
  if (zeros > 0) minus_zeros_ += count_minus_zeros(x, n);
  range_.smallest = std::min(range_.smallest, range.smallest);
  range_.largest = std::max(range_.largest, range.largest);
  if (!tables_) tables_ = std::make_unique<uint32_t[]>(kTables * kBins);
  uint32_t* const tables[kTables] = {tables_.get(), tables_.get() + kBins, tables_.get() + 2 * kBins,
                                     tables_.get() + 3 * kBins};
  if (!plain) {
    for (int64_t i = 0; i < n; ++i) {
      uint32_t bits;
      if (!countable(x, block.doubles, i, &bits)) continue;
      ++tables[i % kTables][bits >> kBinShift];
      const uint32_t magnitude = bits & 0x7fffffffu;
      range_.largest = std::max(range_.largest, magnitude);
      if (magnitude != 0) range_.smallest = std::min(range_.smallest, magnitude);
    }
    return;
  }
  int64_t i = 0;
  for (; i + kTables <= n; i += kTables) {
    uint32_t bits[kTables];
    std::memcpy(bits, x + i, sizeof(bits));
    ++tables[0][bits[0] >> kBinShift];
    ++tables[1][bits[1] >> kBinShift];
    ++tables[2][bits[2] >> kBinShift];
    ++tables[3][bits[3] >> kBinShift];
  }
  for (; i < n; ++i) ++tables[0][bit_cast<uint32_t>(x[i]) >> kBinShift];
}

void BinCounter::take_few(int64_t row, const float* x, int64_t n, const BelowLimits& below) {
  uint16_t bins[kFew];
  for (int64_t i = 0; i < n; ++i) bins[i] = static_cast<uint16_t>(bin_of(bit_cast<uint32_t>(x[i])));
  std::sort(bins, bins + n);
  const auto begin = static_cast<int64_t>(bins_.size());
  for (int64_t i = 0; i < n;) {
    int64_t end = i + 1;
    while (end < n && bins[end] == bins[i]) ++end;
    emit(bins[i], end - i);
    i = end;
  }
  runs_.push_back({row, begin, static_cast<int64_t>(bins_.size()), below});
}

void BinCounter::flush() {
  if (row_ < 0) return;
  const auto begin = static_cast<int64_t>(bins_.size());
  const auto take_out = [&](int raw) {
    int64_t count = 0;
    for (int table = 0; table < kTables; ++table) {
      uint32_t& cell = tables_[table * kBins + raw];
      count += cell;
      cell = 0;
    }
    return count;
  };
  // A raw bin is sign and magnitude; minus zero shares one with the tiniest negatives.
  constexpr int kSign = kBins / 2;
  const int most = static_cast<int>(range_.largest >> kBinShift);
  const int least = std::max(1, std::min(most + 1, static_cast<int>(range_.smallest >> kBinShift)));
  for (int magnitude = most; magnitude >= least; --magnitude) {
    emit(kZeroBin - 1 - magnitude, take_out(kSign + magnitude));
  }
  emit(kZeroBin - 1, take_out(kSign) - minus_zeros_);
  emit(kZeroBin, take_out(0) + minus_zeros_);
  for (int magnitude = least; magnitude <= most; ++magnitude) {
    emit(kZeroBin + magnitude, take_out(magnitude));
  }
  runs_.push_back({row_, begin, static_cast<int64_t>(bins_.size()), below_});
  row_ = -1;
  pending_ = 0;
  minus_zeros_ = 0;
  range_ = MagnitudeRange{};
  below_ = BelowLimits{};
}

SparseBins collect(const std::vector<BinCounter>& counters, int64_t rows) {
  struct Where {
    int64_t row;
    const BinCounter* counter;
    const BinRun* run;
  };
  std::vector<Where> all;
  size_t entries = 0;
  for (const auto& counter : counters) {
    for (const auto& run : counter.runs()) all.push_back({run.row, &counter, &run});
    entries += counter.bins().size();
  }
  std::stable_sort(all.begin(), all.end(), [](const Where& a, const Where& b) { return a.row < b.row; });

  SparseBins out;
  out.offsets.reserve(static_cast<size_t>(rows) + 2);
  out.below.resize(static_cast<size_t>(rows) + 1);
  out.bins.reserve(entries + 4096);
  out.counts.reserve(entries + 4096);
  out.offsets.push_back(0);
  std::vector<int64_t> total(kBins);
  std::vector<int64_t> dense;
  const auto spill = [&](std::vector<int64_t>& table) {
    for (int bin = 0; bin < kBins; ++bin) {
      if (table[bin] == 0) continue;
      out.bins.push_back(bin);
      out.counts.push_back(table[bin]);
      table[bin] = 0;
    }
  };
  size_t at = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const size_t first = at;
    while (at < all.size() && all[at].row == row) ++at;
    const bool several = at - first > 1;
    if (several && dense.empty()) dense.resize(kBins);
    for (size_t r = first; r < at; ++r) {
      const auto& [_, counter, run] = all[r];
      for (int64_t e = run->begin; e < run->end; ++e) {
        const int32_t bin = counter->bins()[e];
        const int64_t count = counter->counts()[e];
        total[bin] += count;
        if (several) {
          dense[bin] += count;
        } else {
          out.bins.push_back(bin);
          out.counts.push_back(count);
        }
      }
      for (int i = 0; i < kLimits; ++i) {
        out.below[row][i] += run->below[i];
        out.below[rows][i] += run->below[i];
      }
    }
    if (several) spill(dense);
    out.offsets.push_back(static_cast<int64_t>(out.bins.size()));
  }
  spill(total);
  out.offsets.push_back(static_cast<int64_t>(out.bins.size()));
  return out;
}

}  // namespace pyparam::cpu
