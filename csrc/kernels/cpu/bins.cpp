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
  written_.begin(row, below);
  for (int64_t i = 0; i < n;) {
    int64_t end = i + 1;
    while (end < n && bins[end] == bins[i]) ++end;
    written_.add(bins[i], end - i);
    i = end;
  }
  written_.end();
}

void BinCounter::flush() {
  if (row_ < 0) return;
  written_.begin(row_, below_);
  const auto emit = [&](int bin, int64_t count) {
    if (count != 0) written_.add(bin, count);
  };
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
  written_.end();
  row_ = -1;
  pending_ = 0;
  minus_zeros_ = 0;
  range_ = MagnitudeRange{};
  below_ = BelowLimits{};
}

}  // namespace pyparam::cpu
