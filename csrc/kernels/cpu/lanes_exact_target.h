// The statistics of a block, with sums that nothing was rounded from.
// Part of lanes_target.h.

namespace pyparam::cpu::PYPARAM_NAMESPACE {

// Sixteen values at a time, as they are read: vectors of float32, and the lanes they are summed in.
struct Sixteen {
  using V = Vectors<float>;
  typename V::Values values[V::kValues];
  typename V::Doubles lanes[V::kDoubles];

#if PYPARAM_VECTOR_BYTES > 16
  PYPARAM_TARGET PYPARAM_INLINE void widen_values() {
#pragma GCC unroll 16
    for (int i = 0; i < V::kValues; ++i) widen_halves(values[i], lanes[2 * i], lanes[2 * i + 1]);
  }
#endif
};

// Of lanes below `count` those of v, of the others those of `filler`.
#if PYPARAM_VECTOR_BYTES == 64
PYPARAM_TARGET static PYPARAM_INLINE __mmask16 first_lanes(int count) {
  return static_cast<__mmask16>((1U << count) - 1);
}
PYPARAM_TARGET static PYPARAM_INLINE void fill_up(Sixteen& x, int count, float filler) {
  x.values[0] = (Floats)_mm512_mask_mov_ps((__m512)(filler - Floats{}), first_lanes(count),
                                           (__m512)x.values[0]);
}
#elif PYPARAM_VECTOR_BYTES == 32
PYPARAM_TARGET static PYPARAM_INLINE __m256i first_lanes(int count, int part) {
  static constexpr int32_t kMasks[2 * kLanes] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                 -1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMasks + kLanes - count + 8 * part));
}
PYPARAM_TARGET static PYPARAM_INLINE void fill_up(Sixteen& x, int count, float filler) {
  for (int part = 0; part < 2; ++part) {
    x.values[part] = (Floats)_mm256_blendv_ps((__m256)(filler - Floats{}), (__m256)x.values[part],
                                              _mm256_castsi256_ps(first_lanes(count, part)));
  }
}
#else
PYPARAM_TARGET static PYPARAM_INLINE void fill_up(Sixteen& x, int count, float filler) {
  float values[kLanes];
  std::memcpy(values, x.values, sizeof(values));
  for (int lane = count; lane < kLanes; ++lane) values[lane] = filler;
  std::memcpy(x.values, values, sizeof(values));
}
#endif

// How values are read that lie in memory as float32 ...
struct StoredFloats {
  using V = Vectors<float>;
  const float* x;

  PYPARAM_TARGET PYPARAM_INLINE float first() const { return x[0]; }
  PYPARAM_TARGET PYPARAM_INLINE const void* at(int64_t i) const { return x + i; }
  PYPARAM_TARGET PYPARAM_INLINE uint32_t bits(int64_t i) const { return magnitude_bits(x[i]); }
  PYPARAM_TARGET PYPARAM_INLINE void read(int64_t i, Sixteen& out) const {
    std::memcpy(out.values, x + i, sizeof(out.values));
#pragma GCC unroll 16
    for (int part = 0; part < V::kDoubles; ++part)
      out.lanes[part] = V::widen(x + i + part * V::kPerDoubles);
  }
  // Fewer than sixteen, and zeros.
  PYPARAM_TARGET PYPARAM_INLINE void read_rest(int64_t i, int count, Sixteen& out) const {
#if PYPARAM_VECTOR_BYTES == 64
    out.values[0] = (Floats)_mm512_maskz_loadu_ps(first_lanes(count), x + i);
    out.widen_values();
#elif PYPARAM_VECTOR_BYTES == 32
    for (int part = 0; part < 2; ++part)
      out.values[part] = (Floats)_mm256_maskload_ps(x + i + 8 * part, first_lanes(count, part));
    out.widen_values();
#else
    float rest[kLanes] = {};
    for (int lane = 0; lane < count; ++lane) rest[lane] = x[i + lane];
    StoredFloats{rest}.read(0, out);
#endif
  }
};

#if PYPARAM_VECTOR_BYTES > 16
// ... or in 16 bits.
template <typename Mini>
struct StoredMinis {
  const typename Mini::storage* x;

  PYPARAM_TARGET PYPARAM_INLINE float first() const { return Mini::value(x[0]); }
  PYPARAM_TARGET PYPARAM_INLINE const void* at(int64_t i) const { return x + i; }
  PYPARAM_TARGET PYPARAM_INLINE uint32_t bits(int64_t i) const {
    return magnitude_bits(Mini::value(x[i]));
  }
  PYPARAM_TARGET PYPARAM_INLINE void read(int64_t i, Sixteen& out) const {
#pragma GCC unroll 16
    for (int part = 0; part < Sixteen::V::kValues; ++part)
      out.values[part] = load(x + i + part * Sixteen::V::kPerValues, Mini{});
    out.widen_values();
  }
  PYPARAM_TARGET PYPARAM_INLINE void read_rest(int64_t i, int count, Sixteen& out) const {
    typename Mini::storage rest[kLanes] = {};
    for (int lane = 0; lane < count; ++lane) rest[lane] = x[i + lane];
    StoredMinis{rest}.read(0, out);
  }
};
#endif

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

  PYPARAM_TARGET PYPARAM_INLINE void take_extremes(const Sixteen& x) {
#pragma GCC unroll 16
    for (int i = 0; i < V::kValues; ++i) {
      const typename V::Values v = x.values[i];
      const typename V::ValueBits bits = (typename V::ValueBits)v & V::kMagnitude;
      min[i] = v < min[i] ? v : min[i];
      max[i] = v > max[i] ? v : max[i];
      least[i] = bits < least[i] ? bits : least[i];
    }
  }

  // high takes the square's multiple of a fixed unit, low what is left of it: both without
  // rounding.
  PYPARAM_TARGET PYPARAM_INLINE void take_sums(const Sixteen& x) {
#pragma GCC unroll 16
    for (int i = 0; i < V::kDoubles; ++i) {
      const typename V::Doubles v = x.lanes[i];
      const typename V::Doubles next = V::add_square(high[i], v);
      low[i] += V::add_square(high[i] - next, v);
      high[i] = next;
      sum[i] += v;
      l1[i] += V::abs(v);
    }
  }

  // The sums of the lanes, in whatever order, as they are exact.
  PYPARAM_TARGET PYPARAM_INLINE void finish(double unit, ExactRun& out) {
    for (auto& lane : high) lane = lane - unit;
#if PYPARAM_VECTOR_BYTES > 16
    const __m256d folded[4] = {fold(sum), fold(l1), fold(high), fold(low)};
    const __m256d a = _mm256_hadd_pd(folded[0], folded[1]);
    const __m256d b = _mm256_hadd_pd(folded[2], folded[3]);
    double sums[4];
    _mm256_storeu_pd(sums, _mm256_add_pd(_mm256_permute2f128_pd(a, b, 0x20),
                                         _mm256_permute2f128_pd(a, b, 0x31)));
    out.sum = sums[0];
    out.magnitudes = sums[1];
    out.squares = sums[2];
    out.squares_rest = sums[3];
#else
    out.sum = add_lanes(sum);
    out.magnitudes = add_lanes(l1);
    out.squares = add_lanes(high);
    out.squares_rest = add_lanes(low);
#endif
  }

#if PYPARAM_VECTOR_BYTES == 64
  PYPARAM_TARGET static PYPARAM_INLINE __m256d fold(const V::Doubles (&x)[2]) {
    const V::Doubles both = x[0] + x[1];
    return (__m256d)__builtin_shufflevector(both, both, 0, 1, 2, 3) +
           (__m256d)__builtin_shufflevector(both, both, 4, 5, 6, 7);
  }
#elif PYPARAM_VECTOR_BYTES == 32
  PYPARAM_TARGET static PYPARAM_INLINE __m256d fold(const V::Doubles (&x)[4]) {
    return (__m256d)((x[0] + x[1]) + (x[2] + x[3]));
  }
#endif
};

// The exponents, with their bias, of magnitudes by their bits: subnormals count as the least of the
// others.
PYPARAM_INLINE int exponent_of(uint32_t bits) { return std::max(1, static_cast<int>(bits >> 23)); }

// Whether the sums of a run whose magnitudes have these bits are exact, with units for values of
// the exponent `guess`. The least one is that of values other than zero.
PYPARAM_INLINE bool spans_little(uint32_t least, uint32_t largest, int guess) {
  return largest < 0x7f800000u && exponent_of(largest) <= guess &&
         (exponent_of(least) >= guess - kExactSpan || largest == 0);
}

// The next guess: that of the largest exponent lately.
PYPARAM_INLINE int next_guess(uint32_t largest, int guess) {
  const int exponent = exponent_of(largest);
  if (largest == 0 || exponent > 254) return guess;
  return exponent > guess || exponent < guess - 1 ? exponent : guess;
}

// A guess from some values, with room for larger ones where there are more.
template <typename Stored>
PYPARAM_TARGET PYPARAM_INLINE int first_guess(const Stored& from, int64_t n) {
  constexpr int64_t kLooked = 4 * kLanes;
  using V = Vectors<float>;
  const int64_t few = std::min(n, kLooked);
  typename V::ValueBits most[V::kValues] = {};
  Sixteen x;
  const auto take = [&]() PYPARAM_TARGET __attribute__((always_inline)) {
    for (int part = 0; part < V::kValues; ++part) {
      const auto bits = (typename V::ValueBits)x.values[part] & V::kMagnitude;
      most[part] = bits > most[part] ? bits : most[part];
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= few; i += kLanes) {
    from.read(i, x);
    take();
  }
  if (i < few) {
    from.read_rest(i, static_cast<int>(few - i), x);
    take();
  }
  const auto largest = static_cast<uint32_t>(picked_lane<int32_t>(most, Largest()));
  return std::min(254, exponent_of(largest) + (few < n ? 1 : 0));
}

// The least magnitude's bits of those that are not zero.
template <typename Stored>
PYPARAM_TARGET static __attribute__((noinline)) uint32_t least_but_zero(const Stored& from,
                                                                        int64_t n) {
  uint32_t least = 0xffffffffu;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t less_one = from.bits(i) - 1U;
    least = less_one < least ? less_one : least;
  }
  return least + 1U;
}

template <typename Stored>
PYPARAM_TARGET PYPARAM_INLINE void measure_run(const Stored& from, int64_t count, int& guess,
                                               Extremes<float>& extremes, ExactRun& out) {
  const double unit = power_of_two(2 * (guess - 127) + 13);
  ExactLanes lanes(from.first(), unit);
  Sixteen x;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    __builtin_prefetch(static_cast<const char*>(from.at(i)) + kAhead);
    from.read(i, x);
    lanes.take_extremes(x);
    lanes.take_sums(x);
  }
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    from.read_rest(i, rest, x);
    lanes.take_sums(x);
    fill_up(x, rest, from.first());
    lanes.take_extremes(x);
  }
  lanes.finish(unit, out);
  const float min = picked_lane<float>(lanes.min, Least());
  const float max = picked_lane<float>(lanes.max, Largest());
  const auto least = static_cast<uint32_t>(picked_lane<int32_t>(lanes.least, Least()));
  const uint32_t largest = std::max(magnitude_bits(min), magnitude_bits(max));
  const uint32_t least_summed = least == 0 && largest != 0 ? least_but_zero(from, count) : least;
  // A NaN that the comparisons passed over is in the sum of magnitudes.
  const bool finite = is_finite(out.magnitudes);
  out.exact = finite && spans_little(least_summed, largest, guess);
  out.exponent = guess;
  extremes.finite = extremes.finite && finite;
  extremes.min = min < extremes.min ? min : extremes.min;
  extremes.max = max > extremes.max ? max : extremes.max;
  extremes.least = std::min(extremes.least, static_cast<int32_t>(least));
  guess = next_guess(largest, guess);
}

// All runs of a block; whether all of their sums are exact.
template <typename Stored>
PYPARAM_TARGET PYPARAM_INLINE bool measure_runs(const Stored& from, int64_t n, int& guess,
                                                Extremes<float>& extremes, ExactRun* runs) {
  if (guess == 0) guess = first_guess(from, n);
  const float first = from.first();
  extremes = {first, first, std::numeric_limits<int32_t>::max(), true};
  bool all = true;
  for (int64_t begin = 0; begin < n; begin += kExactRun, ++runs) {
    measure_run(Stored{from.x + begin}, std::min(kExactRun, n - begin), guess, extremes, *runs);
    all = all && runs->exact;
  }
  return all;
}

PYPARAM_TARGET static Statistics measure_float(const float* x, int64_t n, float normal,
                                               MagnitudeRange* range, int* guess, ExactRun* runs) {
  Extremes<float> extremes;
  measure_runs(StoredFloats{x}, n, *guess, extremes, runs);
  const auto small = [&](Statistics& out) { count_small(x, n, normal, out); };
  return conclude(extremes, [x] { return x; }, small, n, normal, range);
}

// Of 16-bit values, widened in registers; written out where they are needed again.
template <typename Mini>
PYPARAM_TARGET static inline Statistics measure_mini(const void* stored, int64_t n, float* widened,
                                                     int* guess, ExactRun* runs) {
#if PYPARAM_VECTOR_BYTES > 16
  const auto* x = static_cast<const typename Mini::storage*>(stored);
  const auto values = [&] {
    expand<Mini>(stored, n, widened);
    return static_cast<const float*>(widened);
  };
  Extremes<float> extremes;
  if (!measure_runs(StoredMinis<Mini>{x}, n, *guess, extremes, runs)) values();
  const auto small = [&](Statistics& out) { count_small_stored<Mini>(x, n, out); };
  return conclude(extremes, values, small, n, Mini::smallest_normal(), nullptr);
#else
  expand<Mini>(stored, n, widened);
  return measure_float(widened, n, Mini::smallest_normal(), nullptr, guess, runs);
#endif
}

PYPARAM_TARGET static Statistics measure_half(const void* x, int64_t n, float* widened, int* guess,
                                              ExactRun* runs) {
  return measure_mini<Half>(x, n, widened, guess, runs);
}
PYPARAM_TARGET static Statistics measure_bfloat16(const void* x, int64_t n, float* widened,
                                                  int* guess, ExactRun* runs) {
  return measure_mini<BFloat16>(x, n, widened, guess, runs);
}

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
