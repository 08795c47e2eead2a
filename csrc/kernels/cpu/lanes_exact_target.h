// The statistics of a block, with sums that nothing was rounded from.
// Part of lanes_target.h.

namespace pyparam::cpu::PYPARAM_NAMESPACE {

struct ExactLanes {
  using V = Vectors<float>;
  typename V::Values min[V::kValues], max[V::kValues];
  typename V::ValueBits least[V::kValues];
  typename V::Doubles sum[V::kDoubles], l1[V::kDoubles], high[V::kDoubles], low[V::kDoubles];

  PYPARAM_TARGET PYPARAM_INLINE ExactLanes(float first, double unit) {
    for (int i = 0; i < V::kValues; ++i) {
      min[i] = max[i] = first - typename V::Values{};
      least[i] = V::kMagnitude - typename V::ValueBits{};
    }
    for (int i = 0; i < V::kDoubles; ++i) {
      sum[i] = l1[i] = low[i] = typename V::Doubles{};
      high[i] = unit - typename V::Doubles{};
    }
  }

  PYPARAM_TARGET PYPARAM_INLINE void take_extremes(int i, typename V::Values v) {
    const typename V::ValueBits bits = (typename V::ValueBits)v & V::kMagnitude;
    min[i] = v < min[i] ? v : min[i];
    max[i] = v > max[i] ? v : max[i];
    least[i] = bits < least[i] ? bits : least[i];
  }

  // high takes the square's multiple of a fixed unit, low what is left of it: both without
  // rounding.
  PYPARAM_TARGET PYPARAM_INLINE void take_sums(int i, typename V::Doubles v) {
    const typename V::Doubles next = V::add_square(high[i], v);
    low[i] += V::add_square(high[i] - next, v);
    high[i] = next;
    sum[i] += v;
    l1[i] += V::abs(v);
  }

  // Sixteen values; `summed` has zeros where there is nothing to add.
  PYPARAM_TARGET PYPARAM_INLINE void take(const float* x, const float* summed) {
#pragma GCC unroll 16
    for (int i = 0; i < V::kValues; ++i) {
      typename V::Values v;
      std::memcpy(&v, x + i * V::kPerValues, kBytes);
      take_extremes(i, v);
    }
#pragma GCC unroll 16
    for (int i = 0; i < V::kDoubles; ++i) take_sums(i, V::widen(summed + i * V::kPerDoubles));
  }

#if PYPARAM_VECTOR_BYTES > 16
  template <typename Mini>
  PYPARAM_TARGET PYPARAM_INLINE void take_stored(const typename Mini::storage* x) {
#pragma GCC unroll 16
    for (int i = 0; i < V::kValues; ++i) {
      const Floats v = load(x + i * V::kPerValues, Mini{});
      take_extremes(i, v);
      Wide halves[2];
      widen_halves(v, halves[0], halves[1]);
      take_sums(2 * i, halves[0]);
      take_sums(2 * i + 1, halves[1]);
    }
  }
#endif
};

// Whether the sums of a run whose magnitudes have these bits are exact, with units for values of
// the exponent `guess`.
PYPARAM_INLINE bool spans_little(uint32_t least, uint32_t largest, int guess) {
  const int exponent = std::max(1, static_cast<int>(largest >> 23));
  const int lowest = std::max(1, static_cast<int>(least >> 23));
  return largest < 0x7f800000u && exponent <= guess &&
         (lowest >= guess - kExactSpan || largest == 0);
}

// The next guess: that of the largest exponent lately.
PYPARAM_INLINE int next_guess(uint32_t largest, int guess) {
  const int exponent = std::max(1, static_cast<int>(largest >> 23));
  if (largest == 0 || exponent > 254) return guess;
  return exponent > guess || exponent < guess - 1 ? exponent : guess;
}

template <typename TakeAll>
PYPARAM_TARGET PYPARAM_INLINE void measure_run(float first, const TakeAll& take_all, int& guess,
                                               Sums<float>& extremes, ExactRun& out) {
  const double unit = power_of_two(2 * (guess - 127) + 13);
  ExactLanes lanes(first, unit);
  take_all(lanes);
  const float min = least_lane<float>(lanes.min);
  const float max = largest_lane<float>(lanes.max);
  const auto least = static_cast<uint32_t>(least_lane<int32_t>(lanes.least));
  const uint32_t largest = std::max(magnitude_bits(min), magnitude_bits(max));
  for (auto& lane : lanes.high) lane = lane - unit;
  out.sum = add_lanes(lanes.sum);
  out.magnitudes = add_lanes(lanes.l1);
  out.squares = add_lanes(lanes.high);
  out.squares_rest = add_lanes(lanes.low);
  // A NaN that the comparisons passed over is in the sum of magnitudes.
  out.exact = is_finite(out.magnitudes) && spans_little(least, largest, guess);
  extremes.l1 += out.magnitudes;
  extremes.min = min < extremes.min ? min : extremes.min;
  extremes.max = max > extremes.max ? max : extremes.max;
  extremes.least = std::min(extremes.least, static_cast<int32_t>(least));
  guess = next_guess(largest, guess);
}

template <typename Values, typename Small>
PYPARAM_TARGET PYPARAM_INLINE Statistics conclude_exact(const Sums<float>& extremes,
                                                        const Values& values, const Small& small,
                                                        int64_t n, float normal,
                                                        MagnitudeRange* range) {
  Statistics out;
  if (__builtin_expect(!is_finite(extremes.l1), false)) {
    measure_carefully(values(), n, normal, out);
    return out;
  }
  out.finite = n;
  out.min = extremes.min;
  out.max = extremes.max;
  if (static_cast<uint32_t>(extremes.least) < bit_cast<uint32_t>(normal)) small(out);
  if (range != nullptr && extremes.least != 0) {
    range->smallest = static_cast<uint32_t>(extremes.least);
    range->largest = magnitude_bits(static_cast<float>(max_abs_of(out)));
  }
  return out;
}

PYPARAM_TARGET static Statistics measure_exact_float(const float* x, int64_t n, float normal,
                                                     MagnitudeRange* range, int* guess,
                                                     ExactRun* runs) {
  Sums<float> extremes{0, 0, 0, x[0], x[0], std::numeric_limits<int32_t>::max()};
  for (int64_t begin = 0; begin < n; begin += kExactRun, ++runs) {
    const float* from = x + begin;
    const int64_t count = std::min(kExactRun, n - begin);
    measure_run(
        from[0],
        [&](ExactLanes& lanes) PYPARAM_TARGET __attribute__((always_inline)) {
          int64_t i = 0;
          for (; i + kLanes <= count; i += kLanes) {
            __builtin_prefetch(reinterpret_cast<const char*>(from + i) + kAhead);
            lanes.take(from + i, from + i);
          }
          if (i < count) {
            float rest[kLanes], rest_summed[kLanes] = {};
            for (float& value : rest) value = from[0];
            for (int lane = 0; i < count; ++i, ++lane) rest[lane] = rest_summed[lane] = from[i];
            lanes.take(rest, rest_summed);
          }
        },
        *guess, extremes, *runs);
  }
  const auto small = [&](Statistics& out) { count_small(x, n, normal, out); };
  return conclude_exact(extremes, [x] { return x; }, small, n, normal, range);
}

// Of 16-bit values, widened in registers; written out where they are needed again.
template <typename Mini>
PYPARAM_TARGET static inline Statistics measure_exact_mini(const void* stored, int64_t n,
                                                           float* widened, int* guess,
                                                           ExactRun* runs) {
  const float normal = Mini::smallest_normal();
#if PYPARAM_VECTOR_BYTES > 16
  const auto* x = static_cast<const typename Mini::storage*>(stored);
  const float first = Mini::value(x[0]);
  Sums<float> extremes{0, 0, 0, first, first, std::numeric_limits<int32_t>::max()};
  bool all_exact = true;
  for (int64_t begin = 0; begin < n; begin += kExactRun, ++runs) {
    const auto* from = x + begin;
    const int64_t count = std::min(kExactRun, n - begin);
    measure_run(
        Mini::value(from[0]),
        [&](ExactLanes& lanes) PYPARAM_TARGET __attribute__((always_inline)) {
          int64_t i = 0;
          for (; i + kLanes <= count; i += kLanes) {
            __builtin_prefetch(reinterpret_cast<const char*>(from + i) + kAhead);
            lanes.take_stored<Mini>(from + i);
          }
          if (i < count) {
            float rest[kLanes], rest_summed[kLanes] = {};
            for (float& value : rest) value = Mini::value(from[0]);
            for (int lane = 0; i < count; ++i, ++lane)
              rest[lane] = rest_summed[lane] = Mini::value(from[i]);
            lanes.take(rest, rest_summed);
          }
        },
        *guess, extremes, *runs);
    all_exact = all_exact && runs->exact;
  }
  const auto values = [&] {
    expand<Mini>(stored, n, widened);
    return static_cast<const float*>(widened);
  };
  if (!all_exact) values();
  const auto small = [&](Statistics& out) { count_small_stored<Mini>(x, n, out); };
  return conclude_exact(extremes, values, small, n, normal, nullptr);
#else
  expand<Mini>(stored, n, widened);
  return measure_exact_float(widened, n, normal, nullptr, guess, runs);
#endif
}

PYPARAM_TARGET static Statistics measure_exact_half(const void* x, int64_t n, float* widened,
                                                    int* guess, ExactRun* runs) {
  return measure_exact_mini<Half>(x, n, widened, guess, runs);
}
PYPARAM_TARGET static Statistics measure_exact_bfloat16(const void* x, int64_t n, float* widened,
                                                        int* guess, ExactRun* runs) {
  return measure_exact_mini<BFloat16>(x, n, widened, guess, runs);
}

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
