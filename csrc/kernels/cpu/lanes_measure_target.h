// The statistics of a block.
// Part of lanes_target.h.

namespace pyparam::cpu::PYPARAM_NAMESPACE {

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

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
