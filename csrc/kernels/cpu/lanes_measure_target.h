// What a block has but its sums: extremes and counts.
// Part of lanes_target.h.

namespace pyparam::cpu::PYPARAM_NAMESPACE {

template <typename T>
struct Extremes {
  T min, max;                       // of all values, NaNs passed over
  typename Vectors<T>::Bits least;  // of the magnitudes' bits
  bool finite;                      // all values are
};

// Counts zeros, and what lies between zero and the smallest normal value, among the bits of a
// block.
template <typename Bits, typename BitsAt>
PYPARAM_TARGET PYPARAM_INLINE void count_small_bits(const BitsAt& bits_at, int64_t n, Bits normal,
                                                    Statistics& out) {
  // Counters as wide as the values, which is enough for a block: vectors hold as many of both.
  static_assert(kBlock <= std::numeric_limits<Bits>::max());
  Bits zeros = 0;
  Bits small = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = static_cast<Bits>(bits_at(i) & std::numeric_limits<Bits>::max());
    zeros = static_cast<Bits>(zeros + (bits == 0));
    small = static_cast<Bits>(small + (bits < normal));
  }
  out.zeros = zeros;
  out.subnormals = small - zeros;
}
template <typename T>
PYPARAM_TARGET static __attribute__((noinline)) void count_small(const T* x, int64_t n, T normal,
                                                                 Statistics& out) {
  using Bits = typename Vectors<T>::Bits;
  const auto bits_at = [x](int64_t i) PYPARAM_TARGET
      __attribute__((always_inline)) { return bit_cast<Bits>(x[i]); };
  count_small_bits<Bits>(bits_at, n, bit_cast<Bits>(normal), out);
}
template <typename Mini>
PYPARAM_TARGET static __attribute__((noinline)) void count_small_stored(
    const typename Mini::storage* x, int64_t n, Statistics& out) {
  const auto bits_at = [x](int64_t i) PYPARAM_TARGET
      __attribute__((always_inline)) { return static_cast<int16_t>(x[i]); };
  count_small_bits<int16_t>(bits_at, n, int16_t{1} << Mini::mantissa_bits, out);
}

// A block with infinities or NaNs in it.
template <typename T>
PYPARAM_TARGET static __attribute__((noinline)) void measure_carefully(const T* x, int64_t n,
                                                                       T normal, Statistics& out) {
  using V = Vectors<T>;
  constexpr T kMost = std::numeric_limits<T>::max();
  int32_t nans = 0;
  int32_t posinfs = 0;
  int32_t neginfs = 0;
  T min = kMost;
  T max = -kMost;
  for (int64_t i = 0; i < n; ++i) {
    const auto signed_bits = bit_cast<typename V::Bits>(x[i]);
    const auto bits = signed_bits & V::kMagnitude;
    nans += bits > V::kInfinity;
    posinfs += signed_bits == V::kInfinity;
    neginfs += signed_bits == (V::kInfinity | std::numeric_limits<typename V::Bits>::min());
    const bool finite = bits < V::kInfinity;
    const T low = finite ? x[i] : kMost;
    const T high = finite ? x[i] : -kMost;
    min = low < min ? low : min;
    max = high > max ? high : max;
  }
  out.nans = nans;
  out.posinfs = posinfs;
  out.neginfs = neginfs;
  out.finite = n - nans - posinfs - neginfs;
  if (out.finite > 0) {
    out.min = min;
    out.max = max;
  }
  count_small(x, n, normal, out);
}

// `values` gives the values when they are needed again, which is rare, and `small` counts those
// below the normal ones.
template <typename T, typename Values, typename Small>
PYPARAM_TARGET PYPARAM_INLINE Statistics conclude(const Extremes<T>& extremes, const Values& values,
                                                  const Small& small, int64_t n, T normal,
                                                  MagnitudeRange* range) {
  Statistics out;
  if (__builtin_expect(!extremes.finite, false)) {
    measure_carefully(values(), n, normal, out);
    return out;
  }
  out.finite = n;
  out.min = extremes.min;
  out.max = extremes.max;
  if (extremes.least < bit_cast<typename Vectors<T>::Bits>(normal)) small(out);
  if (sizeof(T) == 4 && range != nullptr && extremes.least != 0) {
    range->smallest = static_cast<uint32_t>(extremes.least);
    range->largest = magnitude_bits(static_cast<float>(max_abs_of(out)));
  }
  return out;
}

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
