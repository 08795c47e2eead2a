// The loops of lanes.h for one target. lanes.cpp includes this file once for each, with PYPARAM_NAMESPACE,
// PYPARAM_TARGET (the function attribute) and PYPARAM_VECTOR_BYTES defined, so there is no include guard.

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
  // As many T as one vector has doubles.
  typedef T Widened __attribute__((vector_size(kBytes / 8 * sizeof(T))));

  static constexpr int kPerValues = kBytes / static_cast<int>(sizeof(T));
  static constexpr int kPerDoubles = kBytes / 8;
  static constexpr int kValues = kLanes / kPerValues;    // vectors of sixteen T
  static constexpr int kDoubles = kLanes / kPerDoubles;  // vectors of sixteen doubles

  PYPARAM_TARGET static PYPARAM_INLINE Doubles widen(const T* from) {
    Widened narrow;
    std::memcpy(&narrow, from, sizeof(narrow));
    return __builtin_convertvector(narrow, Doubles);
  }
  PYPARAM_TARGET static PYPARAM_INLINE Doubles abs(Doubles x) {
    return (Doubles)((DoubleBits)x & std::numeric_limits<int64_t>::max());
  }
};

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
    for (int i = 0; i < width; ++i) lanes[i] = lanes[i + width] < lanes[i] ? lanes[i + width] : lanes[i];
  }
  return lanes[0];
}

template <typename T>
PYPARAM_TARGET static inline T largest_lane(const void* vectors) {
  T lanes[kLanes];
  std::memcpy(lanes, vectors, sizeof(lanes));
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] = lanes[i + width] > lanes[i] ? lanes[i + width] : lanes[i];
  }
  return lanes[0];
}

template <typename T>
struct Sums {
  using Bits = typename Vectors<T>::Bits;
  double sum, squares, l1;  // of x - shift, of its square, of |x|
  T min, max;
  Bits least_bits, largest_bits;  // of the magnitudes
};

template <typename T>
struct Lanes {
  using V = Vectors<T>;
  typename V::Values min[V::kValues], max[V::kValues];
  typename V::ValueBits least[V::kValues], largest[V::kValues];
  typename V::Doubles sum[V::kDoubles], squares[V::kDoubles], l1[V::kDoubles];

  PYPARAM_TARGET PYPARAM_INLINE explicit Lanes(T first) {
    for (int i = 0; i < V::kValues; ++i) {
      min[i] = max[i] = first - typename V::Values{};
      least[i] = V::kMagnitude - typename V::ValueBits{};
      largest[i] = typename V::ValueBits{};
    }
    for (int i = 0; i < V::kDoubles; ++i) sum[i] = squares[i] = l1[i] = typename V::Doubles{};
  }

  // Takes in sixteen values, whose magnitudes add to l1 as read from `of_magnitudes`.
  PYPARAM_TARGET PYPARAM_INLINE void take(const T* x, const T* of_magnitudes, double shift) {
#pragma GCC unroll 16
    for (int i = 0; i < V::kValues; ++i) {
      typename V::Values v;
      std::memcpy(&v, x + i * V::kPerValues, kBytes);
      const typename V::ValueBits bits = (typename V::ValueBits)v & V::kMagnitude;
      min[i] = v < min[i] ? v : min[i];
      max[i] = v > max[i] ? v : max[i];
      least[i] = bits < least[i] ? bits : least[i];
      largest[i] = bits > largest[i] ? bits : largest[i];
    }
#pragma GCC unroll 16
    for (int i = 0; i < V::kDoubles; ++i) {
      const typename V::Doubles v = V::widen(x + i * V::kPerDoubles);
      const typename V::Doubles d = v - shift;
      sum[i] += d;
      squares[i] += d * d;
      l1[i] += V::abs(x == of_magnitudes ? v : V::widen(of_magnitudes + i * V::kPerDoubles));
    }
  }

  PYPARAM_TARGET PYPARAM_INLINE void finish(Sums<T>& out) const {
    out.sum = add_lanes(sum);
    out.squares = add_lanes(squares);
    out.l1 = add_lanes(l1);
    out.min = least_lane<T>(min);
    out.max = largest_lane<T>(max);
    out.least_bits = least_lane<typename V::Bits>(least);
    out.largest_bits = largest_lane<typename V::Bits>(largest);
  }
};

template <typename T>
PYPARAM_TARGET PYPARAM_INLINE void take_all(const T* x, const T* of_magnitudes, int64_t n, T shift, Sums<T>& out) {
  Lanes<T> lanes(shift);
  int64_t i = 0;
  if (x == of_magnitudes) {
    for (; i + kLanes <= n; i += kLanes) lanes.take(x + i, x + i, shift);
  } else {
    for (; i + kLanes <= n; i += kLanes) lanes.take(x + i, of_magnitudes + i, shift);
  }
  if (i < n) {
    // The rest, filled up with the shift, which adds nothing to its own sums, and with zeros for l1.
    T rest[kLanes], magnitudes[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      rest[lane] = shift;
      magnitudes[lane] = 0;
    }
    for (int lane = 0; i < n; ++i, ++lane) {
      rest[lane] = x[i];
      magnitudes[lane] = of_magnitudes[i];
    }
    lanes.take(rest, magnitudes, shift);
  }
  lanes.finish(out);
}

template <typename T>
PYPARAM_TARGET static __attribute__((noinline)) void count_small(const T* x, int64_t n, T normal, Statistics& out) {
  using V = Vectors<T>;
  const auto normal_bits = bit_cast<typename V::Bits>(normal);
  int32_t zeros = 0;
  int32_t small = 0;
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = bit_cast<typename V::Bits>(x[i]) & V::kMagnitude;
    zeros += bits == 0;
    small += bits < normal_bits;
  }
  out.zeros = zeros;
  out.subnormals = small - zeros;
}

// A block with infinities or NaNs in it, or (float64) with values whose squares leave the range.
template <typename T>
PYPARAM_TARGET static __attribute__((noinline)) void measure_carefully(const T* x, int64_t n, T normal,
                                                                        Statistics& out) {
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
    take_all<T>(values, magnitudes, n, shift, sums);
    out.min = sums.min;
    out.max = sums.max;
    if (out.exponent != 0) {
      for (int64_t i = 0; i < n; ++i) {
        values[i] *= static_cast<T>(scale);
        magnitudes[i] *= static_cast<T>(scale);
      }
      shift *= static_cast<T>(scale);
      take_all<T>(values, magnitudes, n, shift, sums);
    }
    set_moments(out, shift, sums.sum, sums.squares);
    out.l1 = sums.l1;
  }
  count_small(x, n, normal, out);
}

template <typename T>
PYPARAM_TARGET PYPARAM_INLINE Statistics measure(const T* x, int64_t n, T normal) {
  using V = Vectors<T>;
  Statistics out;
  Sums<T> sums;
  take_all<T>(x, x, n, x[0], sums);
  bool careful = sums.largest_bits >= V::kInfinity;
  if constexpr (sizeof(T) == 8) {
    careful = careful || scaling_exponent(bit_cast<double>(sums.largest_bits)) != 0;
  }
  if (__builtin_expect(careful, false)) {
    measure_carefully(x, n, normal, out);
    return out;
  }
  out.finite = n;
  out.min = sums.min;
  out.max = sums.max;
  out.l1 = sums.l1;
  set_moments(out, x[0], sums.sum, sums.squares);
  if (sums.least_bits < bit_cast<typename V::Bits>(normal)) count_small(x, n, normal, out);
  return out;
}

PYPARAM_TARGET static Statistics measure_float(const float* x, int64_t n, float normal) {
  return measure<float>(x, n, normal);
}
PYPARAM_TARGET static Statistics measure_double(const double* x, int64_t n) {
  return measure<double>(x, n, std::numeric_limits<double>::min());
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
  for (int64_t i = 0; i < n; ++i) static_cast<float*>(to)[i] = Mini::value(bits[i]);
}

PYPARAM_TARGET static void widen(Format format, const void* from, int64_t n, void* to) {
  switch (format) {
    case Format::kFloat: return convert<float, float>(from, n, to);
    case Format::kDouble: return convert<double, double>(from, n, to);
    case Format::kHalf: return expand<Half>(from, n, to);
    case Format::kBFloat16: return expand<BFloat16>(from, n, to);
    case Format::kFloat8e5m2: return expand<Float8e5m2>(from, n, to);
    case Format::kFloat8e4m3fn: return expand<Float8e4m3fn>(from, n, to);
    case Format::kFloat8e5m2fnuz: return expand<Float8e5m2fnuz>(from, n, to);
    case Format::kFloat8e4m3fnuz: return expand<Float8e4m3fnuz>(from, n, to);
    case Format::kFloat8e8m0fnu: return expand<Float8e8m0fnu>(from, n, to);
    case Format::kBool:
      for (int64_t i = 0; i < n; ++i) {
        static_cast<float*>(to)[i] = static_cast<const uint8_t*>(from)[i] != 0 ? 1.0f : 0.0f;
      }
      return;
    case Format::kUInt8: return convert<uint8_t, float>(from, n, to);
    case Format::kInt8: return convert<int8_t, float>(from, n, to);
    case Format::kInt16: return convert<int16_t, float>(from, n, to);
    case Format::kUInt16: return convert<uint16_t, float>(from, n, to);
    case Format::kInt32: return convert<int32_t, double>(from, n, to);
    case Format::kUInt32: return convert<uint32_t, double>(from, n, to);
    case Format::kInt64: return convert<int64_t, double>(from, n, to);
    case Format::kUInt64: return convert<uint64_t, double>(from, n, to);
  }
}

PYPARAM_TARGET static void narrow(const double* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(from[i]);
}

PYPARAM_TARGET static int64_t count_below(const float* x, int64_t n, uint32_t limit) {
  const auto signed_limit = static_cast<int32_t>(limit);
  int32_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += (bit_cast<int32_t>(x[i]) & 0x7fffffff) < signed_limit;
  return count;
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
PYPARAM_TARGET static void extremes_float(const float* x, int64_t n, double* least, double* largest) {
  extremes(x, n, least, largest);
}
PYPARAM_TARGET static void extremes_double(const double* x, int64_t n, double* least, double* largest) {
  extremes(x, n, least, largest);
}

static constexpr LaneKernels kernels = {
    measure_float, measure_double, widen,          narrow,         count_below,    magnitude_range,
    squares_float, squares_double, sum_abs_float,  sum_abs_double, extremes_float, extremes_double,
};

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
