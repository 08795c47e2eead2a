// Counts of bins and limits, and the parts of norms.
// Part of lanes_target.h.

namespace pyparam::cpu::PYPARAM_NAMESPACE {

template <bool kBinned>
PYPARAM_TARGET PYPARAM_INLINE void count(const float* x, int64_t n, uint32_t* tables,
                                         const Limits& limits, Limits& counts) {
  using V = Vectors<float>;
  typename V::ValueBits limit[kCountedAtOnce], below[kCountedAtOnce];
#pragma GCC unroll 8
  for (int l = 0; l < kCountedAtOnce; ++l) {
    limit[l] = static_cast<int32_t>(limits[l]) - typename V::ValueBits{};
    below[l] = typename V::ValueBits{};
  }
  const auto bin = [&](int64_t i) PYPARAM_TARGET __attribute__((always_inline)) {
    ++tables[(i % 2) * kBins + (bit_cast<uint32_t>(x[i]) >> kBinShift)];
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    // The tables wait for memory and the limits for the vector units: together they take the time
    // of one.
    if (kBinned) {
#pragma GCC unroll 16
      for (int lane = 0; lane < kLanes; ++lane) bin(i + lane);
    }
#pragma GCC unroll 16
    for (int part = 0; part < V::kValues; ++part) {
      typename V::ValueBits v;
      std::memcpy(&v, x + i + part * V::kPerValues, kBytes);
      v &= V::kMagnitude;
#pragma GCC unroll 8
      for (int l = 0; l < kCountedAtOnce; ++l) below[l] -= v < limit[l];
    }
  }
  for (int l = 0; l < kCountedAtOnce; ++l) {
    counts[l] = 0;
    for (int lane = 0; lane < V::kPerValues; ++lane)
      counts[l] += static_cast<uint32_t>(below[l][lane]);
  }
  for (; i < n; ++i) {
    if (kBinned) bin(i);
    for (int l = 0; l < kCountedAtOnce; ++l) counts[l] += magnitude_bits(x[i]) < limits[l];
  }
}

PYPARAM_TARGET static void count_below(const float* x, int64_t n, const Limits& limits,
                                       Limits& counts) {
  count<false>(x, n, nullptr, limits, counts);
}
PYPARAM_TARGET static void count_bins(const float* x, int64_t n, uint32_t* tables,
                                      const Limits& limits, Limits& counts) {
  count<true>(x, n, tables, limits, counts);
}

PYPARAM_TARGET static MagnitudeRange magnitude_range(const float* x, int64_t n) {
  // Unsigned, so that a zero less one is the largest of all; two loops, which vectorize.
  uint32_t before = 0xffffffffu;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t less_one = (bit_cast<uint32_t>(x[i]) & 0x7fffffffu) - 1u;
    before = std::min(before, less_one);
  }
  int32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t bits = bit_cast<int32_t>(x[i]) & 0x7fffffff;
    largest = std::max(largest, bits < 0x7f800000 ? bits : 0);
  }
  return {before < 0x7f7fffffu ? before + 1u : 0x7fffffffu, static_cast<uint32_t>(largest)};
}

enum class Part { kMagnitude, kSquare };

template <typename T, Part kPart, bool kScaled>
PYPARAM_TARGET PYPARAM_INLINE double add_parts(const T* x, int64_t n, double scale) {
  using V = Vectors<T>;
  typename V::Doubles sums[V::kDoubles];
  for (int i = 0; i < V::kDoubles; ++i) sums[i] = typename V::Doubles{};
  const auto take = [&](const T* from) PYPARAM_TARGET __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int i = 0; i < V::kDoubles; ++i) {
      typename V::Doubles v = V::widen(from + i * V::kPerDoubles);
      if (kScaled) v = v * scale;
      sums[i] += kPart == Part::kSquare ? v * v : V::abs(v);
    }
  };
  int64_t at = 0;
  for (; at + kLanes <= n; at += kLanes) take(x + at);
  if (at < n) {
    T rest[kLanes] = {};
    for (int lane = 0; at < n; ++at, ++lane) rest[lane] = x[at];
    take(rest);
  }
  return add_lanes(sums);
}

PYPARAM_TARGET static double squares_float(const float* x, int64_t n) {
  return add_parts<float, Part::kSquare, false>(x, n, 1);
}
PYPARAM_TARGET static double squares_double(const double* x, int64_t n, double scale) {
  return add_parts<double, Part::kSquare, true>(x, n, scale);
}
PYPARAM_TARGET static double sum_abs_float(const float* x, int64_t n) {
  return add_parts<float, Part::kMagnitude, false>(x, n, 1);
}
PYPARAM_TARGET static double sum_abs_double(const double* x, int64_t n) {
  return add_parts<double, Part::kMagnitude, false>(x, n, 1);
}

template <typename T>
PYPARAM_TARGET static inline void extremes(const T* x, int64_t n, double* least, double* largest) {
  using V = Vectors<T>;
  typename V::Bits low = V::kMagnitude;
  typename V::Bits high = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = bit_cast<typename V::Bits>(x[i]) & V::kMagnitude;
    low = bits < low ? bits : low;
    high = bits > high ? bits : high;
  }
  *largest = bit_cast<T>(high);
  *least = high > V::kInfinity ? *largest : static_cast<double>(bit_cast<T>(low));
}
PYPARAM_TARGET static void extremes_float(const float* x, int64_t n, double* least,
                                          double* largest) {
  extremes(x, n, least, largest);
}
PYPARAM_TARGET static void extremes_double(const double* x, int64_t n, double* least,
                                           double* largest) {
  extremes(x, n, least, largest);
}

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
