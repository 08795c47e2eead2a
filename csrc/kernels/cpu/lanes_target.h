// The loops of lanes.h for one target. lanes.cpp includes this file once for each, with
// PYPARAM_NAMESPACE, PYPARAM_TARGET (the function attribute) and PYPARAM_VECTOR_BYTES defined, so
// there is no include guard.

namespace pyparam::cpu::PYPARAM_NAMESPACE {

constexpr int kBytes = PYPARAM_VECTOR_BYTES;
constexpr int kLanes = 16;

template <typename T>
struct Vectors {
  using Bits = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  static constexpr Bits kMagnitude = std::numeric_limits<Bits>::max();
  static constexpr Bits kInfinity = sizeof(T) == 4 ? Bits(0x7f800000) : Bits(0x7ff0000000000000);

  typedef T Values __attribute__((vector_size(kBytes)));
  typedef Bits ValueBits __attribute__((vector_size(kBytes)));
  typedef double Doubles __attribute__((vector_size(kBytes)));
  typedef int64_t DoubleBits __attribute__((vector_size(kBytes)));
  static constexpr int kPerValues = kBytes / static_cast<int>(sizeof(T));
  static constexpr int kPerDoubles = kBytes / 8;
  static constexpr int kValues = kLanes / kPerValues;    // vectors of sixteen T
  static constexpr int kDoubles = kLanes / kPerDoubles;  // vectors of sixteen doubles

  // The next vector of doubles. Intrinsics, since GCC converts a float vector by parts.
  PYPARAM_TARGET static PYPARAM_INLINE Doubles widen(const double* from) {
    Doubles out;
    std::memcpy(&out, from, kBytes);
    return out;
  }
  PYPARAM_TARGET static PYPARAM_INLINE Doubles widen(const float* from) {
#if defined(__x86_64__) && PYPARAM_VECTOR_BYTES == 64
    // All lanes; the plain intrinsic makes GCC warn of its own undefined vector.
    return (Doubles)_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(from));
#elif defined(__x86_64__) && PYPARAM_VECTOR_BYTES == 32
    return (Doubles)_mm256_cvtps_pd(_mm_loadu_ps(from));
#elif defined(__x86_64__)
    return (Doubles)_mm_cvtps_pd(
        _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
    typedef float Narrow __attribute__((vector_size(kBytes / 2)));
    Narrow narrow;
    std::memcpy(&narrow, from, sizeof(narrow));
    return __builtin_convertvector(narrow, Doubles);
#endif
  }
  PYPARAM_TARGET static PYPARAM_INLINE Doubles abs(Doubles x) {
    return (Doubles)((DoubleBits)x & std::numeric_limits<int64_t>::max());
  }

  // sum + x * x for x widened from float32, whose square has at most 48 bits: exact, so that fusing
  // it with the addition, where the machine can, changes nothing.
  PYPARAM_TARGET static PYPARAM_INLINE Doubles add_square(Doubles sum, Doubles x) {
#if defined(__x86_64__) && PYPARAM_VECTOR_BYTES == 64
    return (Doubles)_mm512_fmadd_pd((__m512d)x, (__m512d)x, (__m512d)sum);
#elif defined(__x86_64__) && PYPARAM_VECTOR_BYTES == 32
    return (Doubles)_mm256_fmadd_pd((__m256d)x, (__m256d)x, (__m256d)sum);
#else
    return sum + x * x;
#endif
  }
};

#if PYPARAM_VECTOR_BYTES > 16
// One vector of float32 read from 16-bit values, and its halves widened further.
using Floats = Vectors<float>::Values;
using Wide = Vectors<float>::Doubles;

#if PYPARAM_VECTOR_BYTES == 64
PYPARAM_TARGET static PYPARAM_INLINE Floats load(const BFloat16::storage* from, BFloat16) {
  const __m256i stored = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return (Floats)_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, stored), 16);
}
PYPARAM_TARGET static PYPARAM_INLINE Floats load(const Half::storage* from, Half) {
  const __m256i stored = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return (Floats)_mm512_maskz_cvtph_ps(0xffff, stored);
}
PYPARAM_TARGET static PYPARAM_INLINE void widen_halves(Floats from, Wide& low, Wide& high) {
  low = (Wide)_mm512_maskz_cvtps_pd(
      0xff, (__m256)__builtin_shufflevector(from, from, 0, 1, 2, 3, 4, 5, 6, 7));
  high = (Wide)_mm512_maskz_cvtps_pd(
      0xff, (__m256)__builtin_shufflevector(from, from, 8, 9, 10, 11, 12, 13, 14, 15));
}
#else
PYPARAM_TARGET static PYPARAM_INLINE Floats load(const BFloat16::storage* from, BFloat16) {
  const __m128i stored = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(stored), 16);
}
PYPARAM_TARGET static PYPARAM_INLINE Floats load(const Half::storage* from, Half) {
  return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
PYPARAM_TARGET static PYPARAM_INLINE void widen_halves(Floats from, Wide& low, Wide& high) {
  low = (Wide)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)from));
  high = (Wide)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)from, 1));
}
#endif
#endif

// Adds sixteen lanes as a binary tree.
PYPARAM_TARGET static inline double add_lanes(const void* vectors) {
  double lanes[kLanes];
  std::memcpy(lanes, vectors, sizeof(lanes));
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

template <typename T>
PYPARAM_TARGET static inline T least_lane(const void* vectors) {
  T lanes[kLanes];
  std::memcpy(lanes, vectors, sizeof(lanes));
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i)
      lanes[i] = lanes[i + width] < lanes[i] ? lanes[i + width] : lanes[i];
  }
  return lanes[0];
}

template <typename T>
PYPARAM_TARGET static inline T largest_lane(const void* vectors) {
  T lanes[kLanes];
  std::memcpy(lanes, vectors, sizeof(lanes));
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i)
      lanes[i] = lanes[i + width] > lanes[i] ? lanes[i + width] : lanes[i];
  }
  return lanes[0];
}

template <typename T>
struct Sums {
  double sum, squares, l1;  // of x - shift, of its square, of |x|
  T min, max;
  typename Vectors<T>::Bits least;  // of the magnitudes' bits
};

// Sums of values less a shift, or (kShifted false) of values as they are.
template <typename T, bool kShifted>
struct Lanes {
  using V = Vectors<T>;
  typename V::Values min[V::kValues], max[V::kValues];
  typename V::ValueBits least[V::kValues];
  typename V::Doubles sum[V::kDoubles], squares[V::kDoubles], l1[V::kDoubles];

  PYPARAM_TARGET PYPARAM_INLINE explicit Lanes(T first) {
    for (int i = 0; i < V::kValues; ++i) {
      min[i] = max[i] = first - typename V::Values{};
      least[i] = V::kMagnitude - typename V::ValueBits{};
    }
    for (int i = 0; i < V::kDoubles; ++i) sum[i] = squares[i] = l1[i] = typename V::Doubles{};
  }

  // Takes in sixteen values. In the places that `summed` has zeros for, nothing is added to l1 and
  // to unshifted sums; elsewhere it holds the same as x.
  PYPARAM_TARGET PYPARAM_INLINE void take(const T* x, const T* summed, double shift) {
#pragma GCC unroll 16
    for (int i = 0; i < V::kValues; ++i) {
      typename V::Values v;
      std::memcpy(&v, x + i * V::kPerValues, kBytes);
      take_extremes(i, v);
    }
#pragma GCC unroll 16
    for (int i = 0; i < V::kDoubles; ++i) {
      const typename V::Doubles v = V::widen(summed + i * V::kPerDoubles);
      take_sums(i, kShifted ? V::widen(x + i * V::kPerDoubles) - shift : v, v);
    }
  }

#if PYPARAM_VECTOR_BYTES > 16
  // The same of sixteen values of 16 bits, without a shift.
  template <typename Mini>
  PYPARAM_TARGET PYPARAM_INLINE void take_stored(const typename Mini::storage* x) {
#pragma GCC unroll 16
    for (int i = 0; i < V::kValues; ++i) {
      const Floats v = load(x + i * V::kPerValues, Mini{});
      take_extremes(i, v);
      Wide low, high;
      widen_halves(v, low, high);
      take_sums(2 * i, low, low);
      take_sums(2 * i + 1, high, high);
    }
  }
#endif

  PYPARAM_TARGET PYPARAM_INLINE void take_extremes(int i, typename V::Values v) {
    const typename V::ValueBits bits = (typename V::ValueBits)v & V::kMagnitude;
    min[i] = v < min[i] ? v : min[i];
    max[i] = v > max[i] ? v : max[i];
    least[i] = bits < least[i] ? bits : least[i];
  }

  PYPARAM_TARGET PYPARAM_INLINE void take_sums(int i, typename V::Doubles d,
                                               typename V::Doubles v) {
    sum[i] += d;
    squares[i] = kShifted || sizeof(T) == 8 ? squares[i] + d * d : V::add_square(squares[i], d);
    l1[i] += V::abs(v);
  }

  PYPARAM_TARGET PYPARAM_INLINE void finish(Sums<T>& out) const {
    out.sum = add_lanes(sum);
    out.squares = add_lanes(squares);
    out.l1 = add_lanes(l1);
    out.min = least_lane<T>(min);
    out.max = largest_lane<T>(max);
    out.least = least_lane<typename V::Bits>(least);
  }
};

// How far ahead of a full block's values memory is asked for: the hardware does not look past a
// page's end.
constexpr int64_t kAhead = 8192;

template <typename T, bool kShifted>
PYPARAM_TARGET PYPARAM_INLINE void take_all(const T* x, const T* summed, int64_t n, T shift,
                                            Sums<T>& out) {
  Lanes<T, kShifted> lanes(kShifted ? shift : x[0]);
  int64_t i = 0;
  if (n == kBlock && x == summed) {
    for (; i < n; i += kLanes) {
      __builtin_prefetch(reinterpret_cast<const char*>(x + i) + kAhead);
      if (sizeof(T) == 8) __builtin_prefetch(reinterpret_cast<const char*>(x + i) + kAhead + 64);
      lanes.take(x + i, x + i, shift);
    }
  } else {
    for (; i + kLanes <= n; i += kLanes) lanes.take(x + i, summed + i, shift);
  }
  if (i < n) {
    // The rest, filled up with a value that changes no extreme, and with zeros.
    T rest[kLanes], rest_summed[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      rest[lane] = kShifted ? shift : x[0];
      rest_summed[lane] = 0;
    }
    for (int lane = 0; i < n; ++i, ++lane) {
      rest[lane] = x[i];
      rest_summed[lane] = summed[i];
    }
    lanes.take(rest, rest_summed, shift);
  }
  lanes.finish(out);
}

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

// A block with infinities or NaNs in it, or (float64) with values whose squares leave the range.
template <typename T>
PYPARAM_TARGET static __attribute__((noinline)) void measure_carefully(const T* x, int64_t n,
                                                                       T normal, Statistics& out) {
  using V = Vectors<T>;
  int32_t nans = 0;
  int32_t posinfs = 0;
  int32_t neginfs = 0;
  typename V::Bits largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto signed_bits = bit_cast<typename V::Bits>(x[i]);
    const auto bits = signed_bits & V::kMagnitude;
    nans += bits > V::kInfinity;
    posinfs += signed_bits == V::kInfinity;
    neginfs += signed_bits == (V::kInfinity | std::numeric_limits<typename V::Bits>::min());
    const auto finite = bits < V::kInfinity ? bits : 0;
    largest = finite > largest ? finite : largest;
  }
  out.nans = nans;
  out.posinfs = posinfs;
  out.neginfs = neginfs;
  out.finite = n - nans - posinfs - neginfs;
  if (out.finite > 0) {
    T shift = x[0];
    for (int64_t i = 1; !is_finite(shift); ++i) shift = x[i];
    double scale = 1;
    if constexpr (sizeof(T) == 8) {
      out.exponent = scaling_exponent(bit_cast<double>(largest));
      scale = power_of_two(-static_cast<int>(out.exponent));
    }
    alignas(64) T values[kBlock];
    alignas(64) T magnitudes[kBlock];
    for (int64_t i = 0; i < n; ++i) {
      const bool finite = (bit_cast<typename V::Bits>(x[i]) & V::kMagnitude) < V::kInfinity;
      values[i] = finite ? x[i] : shift;
      magnitudes[i] = finite ? x[i] : 0;
    }
    Sums<T> sums;
    take_all<T, true>(values, magnitudes, n, shift, sums);
    out.min = sums.min;
    out.max = sums.max;
    if (out.exponent != 0) {
      for (int64_t i = 0; i < n; ++i) {
        values[i] *= static_cast<T>(scale);
        magnitudes[i] *= static_cast<T>(scale);
      }
      shift *= static_cast<T>(scale);
      take_all<T, true>(values, magnitudes, n, shift, sums);
    }
    set_moments(out, shift, sums.sum, sums.squares);
    out.l1 = sums.l1;
  }
  count_small(x, n, normal, out);
}

// Sums about the mean, for values that lie far from zero for their spread. A shift in T, so that
// filling up with it adds nothing.
template <typename T>
PYPARAM_TARGET static __attribute__((noinline)) void center(const T* x, int64_t n, double mean,
                                                            Statistics& out) {
  const auto shift = static_cast<T>(mean);
  Sums<T> sums;
  take_all<T, true>(x, x, n, shift, sums);
  set_moments(out, shift, sums.sum, sums.squares);
}

// What is to be known of a block once its sums are. `values` gives the values when they have to be
// summed again, which is rare, and `small` counts those below the normal ones.
template <typename T, typename Values, typename Small>
PYPARAM_TARGET PYPARAM_INLINE Statistics conclude(const Sums<T>& sums, const Values& values,
                                                  const Small& small, int64_t n, T normal,
                                                  MagnitudeRange* range) {
  using V = Vectors<T>;
  Statistics out;
  // An infinity or a NaN anywhere makes l1 one.
  bool careful = !is_finite(sums.l1);
  if constexpr (sizeof(T) == 8) {
    careful = careful || scaling_exponent(-sums.min > sums.max ? -sums.min : sums.max) != 0;
  }
  if (__builtin_expect(careful, false)) {
    measure_carefully(values(), n, normal, out);
    return out;
  }
  out.finite = n;
  out.min = sums.min;
  out.max = sums.max;
  out.l1 = sums.l1;
  set_moments(out, 0, sums.sum, sums.squares);
  // The subtraction in it lost ten bits or more.
  if (out.m2 < 0x1p-10 * sums.squares) center(values(), n, out.mean, out);
  if (sums.least < bit_cast<typename V::Bits>(normal)) small(out);
  if (sizeof(T) == 4 && range != nullptr && sums.least != 0) {
    range->smallest = static_cast<uint32_t>(sums.least);
    range->largest = magnitude_bits(static_cast<float>(max_abs_of(out)));
  }
  return out;
}

template <typename T>
PYPARAM_TARGET PYPARAM_INLINE Statistics measure(const T* x, int64_t n, T normal,
                                                 MagnitudeRange* range) {
  Sums<T> sums;
  take_all<T, false>(x, x, n, 0, sums);
  const auto small = [&](Statistics& out) { count_small(x, n, normal, out); };
  return conclude(sums, [x] { return x; }, small, n, normal, range);
}

PYPARAM_TARGET static Statistics measure_float(const float* x, int64_t n, float normal,
                                               MagnitudeRange* range) {
  return measure<float>(x, n, normal, range);
}
PYPARAM_TARGET static Statistics measure_double(const double* x, int64_t n) {
  return measure<double>(x, n, std::numeric_limits<double>::min(), nullptr);
}

template <typename Stored, typename To>
PYPARAM_TARGET static inline void convert(const void* from, int64_t n, void* to) {
  for (int64_t i = 0; i < n; ++i) {
    static_cast<To*>(to)[i] = static_cast<To>(static_cast<const Stored*>(from)[i]);
  }
}
template <typename Mini>
PYPARAM_TARGET static inline void expand(const void* from, int64_t n, void* to) {
  const auto* bits = static_cast<const typename Mini::storage*>(from);
  if (n == kBlock) {
    const auto* ahead = static_cast<const char*>(from) + kAhead;
    for (int64_t i = 0; i < n * static_cast<int64_t>(sizeof(bits[0])); i += 64)
      __builtin_prefetch(ahead + i);
  }
  int64_t i = 0;
#if PYPARAM_VECTOR_BYTES > 16
  if constexpr (std::is_same_v<Mini, Half>) {  // the machine has an instruction for it
    for (; i + kBytes / 4 <= n; i += kBytes / 4) {
      const Floats v = load(bits + i, Mini{});
      std::memcpy(static_cast<float*>(to) + i, &v, sizeof(v));
    }
  }
#endif
  for (; i < n; ++i) static_cast<float*>(to)[i] = Mini::value(bits[i]);
}

PYPARAM_TARGET static void widen(Format format, const void* from, int64_t n, void* to) {
  switch (format) {
    case Format::kFloat:
      return convert<float, float>(from, n, to);
    case Format::kDouble:
      return convert<double, double>(from, n, to);
    case Format::kHalf:
      return expand<Half>(from, n, to);
    case Format::kBFloat16:
      return expand<BFloat16>(from, n, to);
    case Format::kFloat8e5m2:
      return expand<Float8e5m2>(from, n, to);
    case Format::kFloat8e4m3fn:
      return expand<Float8e4m3fn>(from, n, to);
    case Format::kFloat8e5m2fnuz:
      return expand<Float8e5m2fnuz>(from, n, to);
    case Format::kFloat8e4m3fnuz:
      return expand<Float8e4m3fnuz>(from, n, to);
    case Format::kFloat8e8m0fnu:
      return expand<Float8e8m0fnu>(from, n, to);
    case Format::kBool:
      for (int64_t i = 0; i < n; ++i) {
        static_cast<float*>(to)[i] = static_cast<const uint8_t*>(from)[i] != 0 ? 1.0f : 0.0f;
      }
      return;
    case Format::kUInt8:
      return convert<uint8_t, float>(from, n, to);
    case Format::kInt8:
      return convert<int8_t, float>(from, n, to);
    case Format::kInt16:
      return convert<int16_t, float>(from, n, to);
    case Format::kUInt16:
      return convert<uint16_t, float>(from, n, to);
    case Format::kInt32:
      return convert<int32_t, double>(from, n, to);
    case Format::kUInt32:
      return convert<uint32_t, double>(from, n, to);
    case Format::kInt64:
      return convert<int64_t, double>(from, n, to);
    case Format::kUInt64:
      return convert<uint64_t, double>(from, n, to);
  }
}

// Widens in registers: the values are written out only where they are needed again.
template <typename Mini>
PYPARAM_TARGET static inline Statistics measure_mini(const void* from, int64_t n, float* widened) {
  const float normal = Mini::smallest_normal();
#if PYPARAM_VECTOR_BYTES > 16
  const auto* x = static_cast<const typename Mini::storage*>(from);
  Lanes<float, false> lanes(Mini::value(x[0]));
  int64_t i = 0;
  if (n == kBlock) {
    for (; i < n; i += kLanes) {
      __builtin_prefetch(reinterpret_cast<const char*>(x + i) + kAhead);
      lanes.take_stored<Mini>(x + i);
    }
  } else {
    for (; i + kLanes <= n; i += kLanes) lanes.take_stored<Mini>(x + i);
  }
  if (i < n) {
    float rest[kLanes], rest_summed[kLanes] = {};
    for (int lane = 0; lane < kLanes; ++lane) rest[lane] = Mini::value(x[0]);
    for (int lane = 0; i < n; ++i, ++lane) rest[lane] = rest_summed[lane] = Mini::value(x[i]);
    lanes.take(rest, rest_summed, 0);
  }
  Sums<float> sums;
  lanes.finish(sums);
  const auto values = [&] {
    expand<Mini>(from, n, widened);
    return static_cast<const float*>(widened);
  };
  const auto small = [&](Statistics& out) { count_small_stored<Mini>(x, n, out); };
  return conclude(sums, values, small, n, normal, nullptr);
#else
  expand<Mini>(from, n, widened);
  return measure<float>(widened, n, normal, nullptr);
#endif
}

PYPARAM_TARGET static Statistics measure_half(const void* x, int64_t n, float* widened) {
  return measure_mini<Half>(x, n, widened);
}
PYPARAM_TARGET static Statistics measure_bfloat16(const void* x, int64_t n, float* widened) {
  return measure_mini<BFloat16>(x, n, widened);
}

PYPARAM_TARGET static void narrow(const double* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(from[i]);
}

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

static constexpr LaneKernels kernels = {
    measure_float,  measure_double, measure_half,    measure_bfloat16, widen,
    narrow,         count_below,    magnitude_range, count_bins,       squares_float,
    squares_double, sum_abs_float,  sum_abs_double,  extremes_float,   extremes_double,
};

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
