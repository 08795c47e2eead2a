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

// The magnitudes of a bin lie below the limits that are edges farther from zero.
struct EdgeLimits {
  int count = 0;
  int index[kLimits];
  int magnitude[kLimits];

  EdgeLimits() {
    for (int i = 0; i < kLimits; ++i) {
      if (!is_bin_edge(rounding_limit(i))) continue;
      index[count] = i;
      magnitude[count++] = static_cast<int>(rounding_limit(i) >> kBinShift);
    }
  }
  void add(int bin, int64_t number, BelowLimits& below) const {
    const int of_bin = bin >= kZeroBin ? bin - kZeroBin : kZeroBin - 1 - bin;
    for (int i = 0; i < count; ++i) below[index[i]] += of_bin < magnitude[i] ? number : 0;
  }
};

}  // namespace

void BinCounter::emit(int bin, int64_t count) {
  if (count == 0) return;
  bins_.push_back(bin);
  counts_.push_back(count);
}

void BinCounter::take(int64_t row, const BlockValues& block, const float* narrowed, int64_t n,
                      const Statistics& of_block, MagnitudeRange range, const LaneKernels& lanes) {
  const float* x = block.floats != nullptr ? block.floats : narrowed;
  int64_t zeros = of_block.zeros;
  int64_t finite = of_block.finite;
  if (block.floats == nullptr) {
    Limits counts;
    lanes.count_below(x, n, Limits{1, kInfinityBits}, counts);
    zeros = counts[0];
    finite = counts[1];
  }
  if (range.smallest > range.largest) range = lanes.magnitude_range(x, n);

  // Limits outside of the range need no counting.
  BelowLimits below{};
  int pending[kLimits];
  int count = 0;
  for (int i = 0; i < kLimits; ++i) {
    const uint32_t limit = rounding_limit(i);
    if (is_bin_edge(limit)) continue;
    below[i] = limit <= range.smallest ? zeros : finite;
    if (limit > range.smallest && limit <= range.largest) pending[count++] = i;
  }
  // The first few limits are counted together with the bins.
  const bool plain = finite == n;
  const bool few = row != row_ && n < kFew && plain;
  if (!few && (row != row_ || pending_ > kMostPending)) flush();
  if (!few && !tables_) tables_ = std::make_unique<uint32_t[]>(2 * kBins);
  bool binned = few || !plain;
  for (int done = 0; done < count || !binned; done += kCountedAtOnce) {
    Limits limits{};
    Limits counts;
    const int some = std::min(kCountedAtOnce, count - done);
    for (int j = 0; j < some; ++j) limits[j] = rounding_limit(pending[done + j]);
    if (binned) {
      lanes.count_below(x, n, limits, counts);
    } else {
      lanes.count_bins(x, n, tables_.get(), limits, counts);
      binned = true;
    }
    for (int j = 0; j < some; ++j) below[pending[done + j]] = counts[j];
  }
  if (few) {
    flush();
    take_few(row, x, n, below);
    return;
  }
  row_ = row;
  pending_ += n;
  for (int i = 0; i < kLimits; ++i) below_[i] += below[i];
  if (zeros > 0) minus_zeros_ += count_minus_zeros(x, n);
  range_.smallest = std::min(range_.smallest, range.smallest);
  range_.largest = std::max(range_.largest, range.largest);
  if (plain) return;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    if (!countable(x, block.doubles, i, &bits)) continue;
    ++tables_[bits >> kBinShift];
    const uint32_t magnitude = bits & 0x7fffffffu;
    range_.largest = std::max(range_.largest, magnitude);
    if (magnitude != 0) range_.smallest = std::min(range_.smallest, magnitude);
  }
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
    for (int table = 0; table < 2; ++table) {
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
  std::stable_sort(all.begin(), all.end(),
                   [](const Where& a, const Where& b) { return a.row < b.row; });

  SparseBins out;
  out.offsets.reserve(static_cast<size_t>(rows) + 2);
  out.below.resize(static_cast<size_t>(rows) + 1);
  out.bins.reserve(entries + 4096);
  out.counts.reserve(entries + 4096);
  out.offsets.push_back(0);
  const EdgeLimits edges;
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
        edges.add(bin, count, out.below[row]);
        if (several) {
          dense[bin] += count;
        } else {
          out.bins.push_back(bin);
          out.counts.push_back(count);
        }
      }
      for (int i = 0; i < kLimits; ++i) out.below[row][i] += run->below[i];
    }
    for (int i = 0; i < kLimits; ++i) out.below[rows][i] += out.below[row][i];
    if (several) spill(dense);
    out.offsets.push_back(static_cast<int64_t>(out.bins.size()));
  }
  spill(total);
  out.offsets.push_back(static_cast<int64_t>(out.bins.size()));
  return out;
}

}  // namespace pyparam::cpu
