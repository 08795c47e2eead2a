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
  static constexpr bool kBriefly = false;
  const float* x;

  PYPARAM_TARGET PYPARAM_INLINE float first() const { return x[0]; }
  PYPARAM_TARGET PYPARAM_INLINE const void* at(int64_t i) const { return x + i; }
  PYPARAM_TARGET PYPARAM_INLINE uint32_t bits(int64_t i) const { return magnitude_bits(x[i]); }
  PYPARAM_TARGET PYPARAM_INLINE void read(int64_t i, Sixteen& out) const {
    // One by one: copied together they would go through memory.
#pragma GCC unroll 16
    for (int part = 0; part < V::kValues; ++part) {
      typename V::Values v;
      std::memcpy(&v, x + i + part * V::kPerValues, kBytes);
      out.values[part] = v;
    }
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
  static constexpr bool kBriefly = std::is_same_v<Mini, BFloat16>;
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

// Float64 values, one vector after another.
struct StoredDoubles {
  using V = Vectors<double>;
  const double* x;

  PYPARAM_TARGET PYPARAM_INLINE double first() const { return x[0]; }
  PYPARAM_TARGET PYPARAM_INLINE const void* at(int64_t i) const { return x + i; }
  PYPARAM_TARGET PYPARAM_INLINE uint64_t bits(int64_t i) const { return magnitude_bits(x[i]); }
};

// What is found of a run beside its sums. Magnitudes by their bits; `least` of all values, zeros
// too. NaNs are passed over, unless the first value is one.
template <typename T>
struct RunExtremes {
  using Bits = std::make_unsigned_t<typename Vectors<T>::Bits>;
  T min, max;
  Bits least;

  PYPARAM_TARGET PYPARAM_INLINE Bits largest() const {
    return std::max(magnitude_bits(min), magnitude_bits(max));
  }
};

template <typename T>
struct ExtremeLanes {
  using V = Vectors<T>;
  typename V::Values min, max;
  typename V::ValueBits least;

  PYPARAM_TARGET PYPARAM_INLINE explicit ExtremeLanes(T first)
      : min(first - typename V::Values{}),
        max(min),
        least(V::kMagnitude - typename V::ValueBits{}) {}
  PYPARAM_TARGET PYPARAM_INLINE void take(typename V::Values v) {
    const typename V::ValueBits bits = (typename V::ValueBits)v & V::kMagnitude;
    min = v < min ? v : min;
    max = v > max ? v : max;
    least = bits < least ? bits : least;
  }
  PYPARAM_TARGET PYPARAM_INLINE void finish(RunExtremes<T>& out) const {
    out.min = picked_lane<T>(min, Least());
    out.max = picked_lane<T>(max, Largest());
    out.least =
        static_cast<typename RunExtremes<T>::Bits>(picked_lane<typename V::Bits>(least, Least()));
  }
};

// The sums of float32 values in float64 lanes, of which each kind below keeps as many as its values
// need so that nothing is rounded: see exact.cpp. The exponent is the largest value's, without its
// bias.
// In few registers: the lanes of so many vectors, in whatever order, as nothing is rounded.
constexpr int kSumVectors = 2;
constexpr int kWideVectors = PYPARAM_VECTOR_BYTES == 64 ? 2 : 1;
template <int kVectors>
using SumLanes = Lanes64[kVectors];

template <int kVectors>
PYPARAM_TARGET static PYPARAM_INLINE void fill(SumLanes<kVectors>& lanes, double value) {
  for (Lanes64& lane : lanes) lane = value - Lanes64{};
}
// Adds v to high, and to low what high does not take.
PYPARAM_TARGET static PYPARAM_INLINE void add_split(Lanes64& high, Lanes64& low, Lanes64 v) {
  const Lanes64 next = high + v;
  low += v - (next - high);
  high = next;
}
PYPARAM_TARGET static PYPARAM_INLINE void add_split(Lanes64& high, Lanes64& middle, Lanes64& low,
                                                    Lanes64 v) {
  const Lanes64 next = high + v;
  add_split(middle, low, v - (next - high));
  high = next;
}

#if PYPARAM_VECTOR_BYTES > 16
template <int kVectors>
PYPARAM_TARGET static PYPARAM_INLINE __m256d fold(const SumLanes<kVectors>& x) {
  const Lanes64 all = kVectors == 1 ? x[0] : x[0] + x[kVectors - 1];
#if PYPARAM_VECTOR_BYTES == 64
  return (__m256d)__builtin_shufflevector(all, all, 0, 1, 2, 3) +
         (__m256d)__builtin_shufflevector(all, all, 4, 5, 6, 7);
#else
  return (__m256d)all;
#endif
}
#endif

// The sums of four times those lanes.
template <int kVectors>
PYPARAM_TARGET static PYPARAM_INLINE void fold_four(const SumLanes<kVectors>& a,
                                                    const SumLanes<kVectors>& b,
                                                    const SumLanes<kVectors>& c,
                                                    const SumLanes<kVectors>& d, double (&out)[4]) {
  static_assert(kVectors <= 2);
#if PYPARAM_VECTOR_BYTES > 16
  const __m256d first = _mm256_hadd_pd(fold<kVectors>(a), fold<kVectors>(b));
  const __m256d second = _mm256_hadd_pd(fold<kVectors>(c), fold<kVectors>(d));
  _mm256_storeu_pd(out, _mm256_add_pd(_mm256_permute2f128_pd(first, second, 0x20),
                                      _mm256_permute2f128_pd(first, second, 0x31)));
#else
  const auto fold = [](const SumLanes<kVectors>& x) {
    const Lanes64 all = kVectors == 1 ? x[0] : x[0] + x[kVectors - 1];
    return all[0] + all[1];
  };
  out[0] = fold(a);
  out[1] = fold(b);
  out[2] = fold(c);
  out[3] = fold(d);
#endif
}
PYPARAM_TARGET static PYPARAM_INLINE void set_window(const double (&sums)[4], ExactRun& out) {
  out.kind = ExactRun::kWindow;
  out.values[0] = sums[0];
  out.magnitudes[0] = sums[1];
  out.squares[0] = sums[2];
  out.squares[1] = sums[3];
}

// Values of eight bits: a lane holds 64 squares as they are.
struct BriefSums {
  static constexpr int kSpan = 15;
  SumLanes<kSumVectors> sum, l1, squares;
  double unit;

  PYPARAM_TARGET PYPARAM_INLINE explicit BriefSums(int exponent)
      : unit(power_of_two(2 * exponent + 13)) {
    for (auto* lanes : {&sum, &l1, &squares}) fill<kSumVectors>(*lanes, 0);
  }
  PYPARAM_TARGET PYPARAM_INLINE void take(const Sixteen& x) {
#pragma GCC unroll 16
    for (int i = 0; i < kLaneVectors; ++i) {
      const Lanes64 v = x.lanes[i];
      const int to = i % kSumVectors;
      squares[to] = Vectors<float>::add_square(squares[to], v);
      sum[to] += v;
      l1[to] += Vectors<float>::abs(v);
    }
  }
  PYPARAM_TARGET PYPARAM_INLINE void finish(ExactRun& out) {
    // All lanes together are too many bits.
    SumLanes<kSumVectors> high, low;
    for (int i = 0; i < kSumVectors; ++i) {
      high[i] = (squares[i] + unit) - unit;
      low[i] = squares[i] - high[i];
    }
    double sums[4];
    fold_four<kSumVectors>(sum, l1, high, low, sums);
    set_window(sums, out);
  }
};

// `high` takes the square's multiple of a fixed unit, `low` what is left of it.
struct NarrowSums {
  static constexpr int kSpan = kExactSpan;
  SumLanes<kSumVectors> sum, l1, high, low;
  double unit;

  PYPARAM_TARGET PYPARAM_INLINE explicit NarrowSums(int exponent)
      : unit(power_of_two(2 * exponent + 13)) {
    for (auto* lanes : {&sum, &l1, &low}) fill<kSumVectors>(*lanes, 0);
    fill<kSumVectors>(high, unit);
  }
  PYPARAM_TARGET PYPARAM_INLINE void take(const Sixteen& x) {
#pragma GCC unroll 16
    for (int i = 0; i < kLaneVectors; ++i) {
      const Lanes64 v = x.lanes[i];
      const int to = i % kSumVectors;
      const Lanes64 next = Vectors<float>::add_square(high[to], v);
      low[to] += Vectors<float>::add_square(high[to] - next, v);
      high[to] = next;
      sum[to] += v;
      l1[to] += Vectors<float>::abs(v);
    }
  }
  PYPARAM_TARGET PYPARAM_INLINE void finish(ExactRun& out) {
    for (Lanes64& lane : high) lane = lane - unit;
    double sums[4];
    fold_four<kSumVectors>(sum, l1, high, low, sums);
    set_window(sums, out);
  }
};

// Values and magnitudes in two parts, squares in three.
struct WideSums {
  static constexpr int kSpan = 39;
  SumLanes<kWideVectors> sum[2], l1[2], squares[3];
  const double units[4];

  PYPARAM_TARGET PYPARAM_INLINE explicit WideSums(int exponent)
      // Sums of both signs start in the middle of what their unit holds.
      : units{1.5 * power_of_two(exponent + 13), power_of_two(exponent + 13),
              power_of_two(2 * exponent + 13), 1.5 * power_of_two(2 * exponent - 28)} {
    fill<kWideVectors>(sum[1], 0);
    fill<kWideVectors>(l1[1], 0);
    fill<kWideVectors>(squares[2], 0);
    fill<kWideVectors>(sum[0], units[0]);
    fill<kWideVectors>(l1[0], units[1]);
    fill<kWideVectors>(squares[0], units[2]);
    fill<kWideVectors>(squares[1], units[3]);
  }
  PYPARAM_TARGET PYPARAM_INLINE void take(const Sixteen& x) {
#pragma GCC unroll 16
    for (int i = 0; i < kLaneVectors; ++i) {
      const Lanes64 v = x.lanes[i];
      const int to = i % kWideVectors;
      add_split(sum[0][to], sum[1][to], v);
      add_split(l1[0][to], l1[1][to], Vectors<float>::abs(v));
      const Lanes64 next = Vectors<float>::add_square(squares[0][to], v);
      add_split(squares[1][to], squares[2][to],
                Vectors<float>::add_square(squares[0][to] - next, v));
      squares[0][to] = next;
    }
  }
  PYPARAM_TARGET PYPARAM_INLINE void finish(ExactRun& out) {
    for (int i = 0; i < kWideVectors; ++i) {
      sum[0][i] -= units[0];
      l1[0][i] -= units[1];
      squares[0][i] -= units[2];
      squares[1][i] -= units[3];
    }
    double sums[2][4];
    fold_four<kWideVectors>(sum[0], sum[1], l1[0], l1[1], sums[0]);
    fold_four<kWideVectors>(squares[0], squares[1], squares[2], squares[2], sums[1]);
    out.kind = ExactRun::kParts;
    std::copy(sums[0], sums[0] + 2, out.values);
    std::copy(sums[0] + 2, sums[0] + 4, out.magnitudes);
    std::fill(std::copy(sums[1], sums[1] + 3, out.squares), std::end(out.squares), 0.0);
  }
};

// Of float64 values: squares rounded to float64, and what that rounding leaves, each in three
// parts.
struct DoubleSums {
  static constexpr int kSpan = 31;
  Lanes64 sum[2], l1[2], squares[3], rests[3];
  const double units[6];

  PYPARAM_TARGET PYPARAM_INLINE explicit DoubleSums(int exponent)
      : units{1.5 * power_of_two(exponent + 13),     power_of_two(exponent + 13),
              power_of_two(2 * exponent + 13),       1.5 * power_of_two(2 * exponent - 28),
              1.5 * power_of_two(2 * exponent - 40), 1.5 * power_of_two(2 * exponent - 81)} {
    const Lanes64 zero{};
    sum[0] = units[0] - zero;
    l1[0] = units[1] - zero;
    squares[0] = units[2] - zero;
    squares[1] = units[3] - zero;
    rests[0] = units[4] - zero;
    rests[1] = units[5] - zero;
    sum[1] = l1[1] = squares[2] = rests[2] = zero;
  }
  PYPARAM_TARGET PYPARAM_INLINE void take(Lanes64 v) {
    add_split(sum[0], sum[1], v);
    add_split(l1[0], l1[1], Vectors<double>::abs(v));
    const Lanes64 square = v * v;
    add_split(squares[0], squares[1], squares[2], square);
    add_split(rests[0], rests[1], rests[2], Vectors<double>::square_less(v, square));
  }
  PYPARAM_TARGET PYPARAM_INLINE void finish(ExactRun& out) {
    sum[0] -= units[0];
    l1[0] -= units[1];
    squares[0] -= units[2];
    squares[1] -= units[3];
    rests[0] -= units[4];
    rests[1] -= units[5];
    out.kind = ExactRun::kParts;
    for (int i = 0; i < 2; ++i) {
      out.values[i] = folded(sum[i]);
      out.magnitudes[i] = folded(l1[i]);
    }
    for (int i = 0; i < 3; ++i) {
      out.squares[i] = folded(squares[i]);
      out.squares[3 + i] = folded(rests[i]);
    }
  }

 private:
  PYPARAM_TARGET PYPARAM_INLINE static double folded(Lanes64 lanes) {
    double sum = 0;
    for (int i = 0; i < Vectors<double>::kPerDoubles; ++i) sum += lanes[i];
    return sum;
  }
};

// Reads a run once: its extremes, and its sums as they are if its magnitudes are of exponents (with
// their bias) up to `exponent`, and down to the span of Sums below it.
template <typename Sums, typename Stored>
PYPARAM_TARGET PYPARAM_INLINE void read_run(const Stored& from, int64_t count, int exponent,
                                            RunExtremes<float>& found, ExactRun& out) {
  Sums sums(exponent - 127);
  ExtremeLanes<float> extremes(from.first());
  Sixteen x;
  const auto take_extremes = [&]() PYPARAM_TARGET __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int i = 0; i < Sixteen::V::kValues; ++i) extremes.take(x.values[i]);
  };
  // Behind a short run lies something else.
  const int64_t ahead = count == kExactRun ? kAhead : 0;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    __builtin_prefetch(static_cast<const char*>(from.at(i)) + ahead);
    from.read(i, x);
    take_extremes();
    sums.take(x);
  }
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    from.read_rest(i, rest, x);
    sums.take(x);
    fill_up(x, rest, from.first());
    take_extremes();
  }
  extremes.finish(found);
  sums.finish(out);
  out.exponent = exponent;
}

template <typename Sums>
PYPARAM_TARGET PYPARAM_INLINE void read_run(const StoredDoubles& from, int64_t count, int exponent,
                                            RunExtremes<double>& found, ExactRun& out) {
  using V = Vectors<double>;
  Sums sums(exponent - 1023);
  ExtremeLanes<double> extremes(from.first());
  const int64_t ahead = count == kExactRun ? kAhead : 0;
  int64_t i = 0;
  for (; i + V::kPerDoubles <= count; i += V::kPerDoubles) {
    __builtin_prefetch(static_cast<const char*>(from.at(i)) + ahead);
    const Lanes64 v = V::widen(from.x + i);
    extremes.take(v);
    sums.take(v);
  }
  if (i < count) {
    double summed[V::kPerDoubles] = {};
    double others[V::kPerDoubles];
    for (double& value : others) value = from.first();
    for (int lane = 0; i < count; ++i, ++lane) summed[lane] = others[lane] = from.x[i];
    sums.take(V::widen(summed));
    extremes.take(V::widen(others));
  }
  extremes.finish(found);
  sums.finish(out);
  out.exponent = exponent;
}

// The exponents, with their bias, of magnitudes by their bits: subnormals count as the least of the
// others.
PYPARAM_INLINE int exponent_of(uint32_t bits) { return std::max(1, static_cast<int>(bits >> 23)); }
PYPARAM_INLINE int exponent_of(uint64_t bits) { return std::max(1, static_cast<int>(bits >> 52)); }

// A guess from some values.
template <typename Stored>
PYPARAM_TARGET static __attribute__((noinline)) int first_guess(const Stored& from, int64_t n) {
  constexpr int64_t kLooked = 64;
  decltype(from.bits(0)) largest = 0;
  for (int64_t i = 0; i < std::min(n, kLooked); ++i) largest = std::max(largest, from.bits(i));
  // Infinities and NaNs have exponents beyond.
  const int most = exponent_of(decltype(largest){~decltype(largest){0} >> 1}) - 1;
  return std::min(most, exponent_of(largest));
}

// The least magnitude's bits of those that are not zero.
template <typename Stored>
PYPARAM_TARGET static __attribute__((noinline)) auto least_but_zero(const Stored& from, int64_t n) {
  using Bits = decltype(from.bits(0));
  Bits least = ~Bits{0};
  for (int64_t i = 0; i < n; ++i) {
    const Bits less_one = from.bits(i) - 1U;
    least = less_one < least ? less_one : least;
  }
  return least + 1U;
}

// Whether the sums of values whose magnitudes have these bits are exact as Sums keeps them for the
// exponent. The least one is that of values other than zero.
template <typename Sums, typename Bits>
PYPARAM_INLINE bool holds(Bits least, Bits largest, int exponent) {
  return largest == 0 ||
         (exponent_of(largest) <= exponent && exponent_of(least) >= exponent - Sums::kSpan);
}

// Kinds of sums, in the order of their spans and of what they cost.
enum SumKind : uint8_t { kBrief, kNarrow, kWide, kNoKind };

template <typename Stored>
PYPARAM_INLINE SumKind kind_for(uint32_t least, uint32_t largest, int exponent) {
  if (Stored::kBriefly && holds<BriefSums>(least, largest, exponent)) return kBrief;
  if (holds<NarrowSums>(least, largest, exponent)) return kNarrow;
  return holds<WideSums>(least, largest, exponent) ? kWide : kNoKind;
}

template <typename Sums, typename Stored, typename Found>
PYPARAM_TARGET static __attribute__((noinline)) void read_seldom(const Stored& from, int64_t count,
                                                                 int exponent, Found& found,
                                                                 ExactRun& out) {
  read_run<Sums>(from, count, exponent, found, out);
}

// Reads a run for the sums and the exponent that the guess names, and again where they turn out not
// to be exact. The guess becomes what this run needed. Whether all values are finite.
template <typename Stored>
PYPARAM_TARGET PYPARAM_INLINE bool measure_run(const Stored& from, int64_t count, Guess& guess,
                                               RunExtremes<float>& found, ExactRun& out) {
  constexpr SumKind kLeast = Stored::kBriefly ? kBrief : kNarrow;
  const auto kind = static_cast<SumKind>(std::max<uint8_t>(guess.kind, kLeast));
  if (kind == kLeast) {
    read_run<std::conditional_t<Stored::kBriefly, BriefSums, NarrowSums>>(
        from, count, guess.exponent, found, out);
  } else if (kind == kNarrow) {
    read_seldom<NarrowSums>(from, count, guess.exponent, found, out);
  } else {
    read_seldom<WideSums>(from, count, guess.exponent, found, out);
  }
  // A NaN that the comparisons passed over is in the sum of magnitudes.
  if (!is_finite(out.magnitudes[0])) {
    out.kind = ExactRun::kUnknown;
    return false;
  }
  const uint32_t largest = found.largest();
  const uint32_t least =
      found.least == 0 && largest != 0 ? least_but_zero(from, count) : found.least;
  SumKind needed = kind_for<Stored>(least, largest, guess.exponent);
  if (__builtin_expect(needed > kind, false)) {
    guess.exponent = exponent_of(largest);
    needed = kind_for<Stored>(least, largest, guess.exponent);
    if (needed == kNoKind) {
      out.kind = ExactRun::kUnknown;
      needed = kLeast;
    } else if (needed == kWide) {
      read_seldom<WideSums>(from, count, guess.exponent, found, out);
    } else {
      read_seldom<NarrowSums>(from, count, guess.exponent, found, out);
    }
  }
  guess.kind = needed;
  return true;
}

// Squares of float64 values, and what rounding them leaves, have to be normal numbers: exponents
// beyond are not guessed.
PYPARAM_INLINE int within_squares(int exponent) {
  return std::min(std::max(exponent, 1023 - 400), 1023 + 490);
}

PYPARAM_TARGET static PYPARAM_INLINE bool measure_run(const StoredDoubles& from, int64_t count,
                                                      Guess& guess, RunExtremes<double>& found,
                                                      ExactRun& out) {
  guess.exponent = within_squares(guess.exponent);
  read_run<DoubleSums>(from, count, guess.exponent, found, out);
  if (!is_finite(out.magnitudes[0])) {
    out.kind = ExactRun::kUnknown;
    return false;
  }
  const uint64_t largest = found.largest();
  const uint64_t least =
      found.least == 0 && largest != 0 ? least_but_zero(from, count) : found.least;
  if (holds<DoubleSums>(least, largest, guess.exponent)) return true;
  guess.exponent = within_squares(exponent_of(largest));
  if (holds<DoubleSums>(least, largest, guess.exponent)) {
    read_seldom<DoubleSums>(from, count, guess.exponent, found, out);
  } else {
    out.kind = ExactRun::kUnknown;
  }
  return true;
}

// All runs of a block; whether the sums of all are known.
template <typename T, typename Stored>
PYPARAM_TARGET PYPARAM_INLINE bool measure_runs(const Stored& from, int64_t n, Guess& guess,
                                                Extremes<T>& extremes, ExactRun* runs) {
  using Bits = typename Vectors<T>::Bits;
  if (guess.exponent == 0) guess.exponent = first_guess(from, n);
  const T first = from.first();
  extremes = {first, first, std::numeric_limits<Bits>::max(), true};
  bool all = true;
  for (int64_t begin = 0; begin < n; begin += kExactRun, ++runs) {
    RunExtremes<T> found;
    const bool finite =
        measure_run(Stored{from.x + begin}, std::min(kExactRun, n - begin), guess, found, *runs);
    extremes.finite = extremes.finite && finite;
    extremes.min = found.min < extremes.min ? found.min : extremes.min;
    extremes.max = found.max > extremes.max ? found.max : extremes.max;
    extremes.least = std::min(extremes.least, static_cast<Bits>(found.least));
    all = all && runs->kind != ExactRun::kUnknown;
  }
  return all;
}

PYPARAM_TARGET static Statistics measure_float(const float* x, int64_t n, float normal,
                                               MagnitudeRange* range, Guess* guess,
                                               ExactRun* runs) {
  Extremes<float> extremes;
  measure_runs<float>(StoredFloats{x}, n, *guess, extremes, runs);
  const auto small = [&](Statistics& out) { count_small(x, n, normal, out); };
  return conclude(extremes, [x] { return x; }, small, n, normal, range);
}

PYPARAM_TARGET static Statistics measure_double(const double* x, int64_t n, Guess* guess,
                                                ExactRun* runs) {
  constexpr double kNormal = std::numeric_limits<double>::min();
  Extremes<double> extremes;
  measure_runs<double>(StoredDoubles{x}, n, *guess, extremes, runs);
  const auto small = [&](Statistics& out) { count_small(x, n, kNormal, out); };
  return conclude(extremes, [x] { return x; }, small, n, kNormal, nullptr);
}

// Of 16-bit values, widened in registers; written out where they are needed again.
template <typename Mini>
PYPARAM_TARGET static inline Statistics measure_mini(const void* stored, int64_t n, float* widened,
                                                     Guess* guess, ExactRun* runs) {
#if PYPARAM_VECTOR_BYTES > 16
  const auto* x = static_cast<const typename Mini::storage*>(stored);
  const auto values = [&] {
    expand<Mini>(stored, n, widened);
    return static_cast<const float*>(widened);
  };
  Extremes<float> extremes;
  if (!measure_runs<float>(StoredMinis<Mini>{x}, n, *guess, extremes, runs)) values();
  const auto small = [&](Statistics& out) { count_small_stored<Mini>(x, n, out); };
  return conclude(extremes, values, small, n, Mini::smallest_normal(), nullptr);
#else
  expand<Mini>(stored, n, widened);
  return measure_float(widened, n, Mini::smallest_normal(), nullptr, guess, runs);
#endif
}

PYPARAM_TARGET static Statistics measure_half(const void* x, int64_t n, float* widened,
                                              Guess* guess, ExactRun* runs) {
  return measure_mini<Half>(x, n, widened, guess, runs);
}
PYPARAM_TARGET static Statistics measure_bfloat16(const void* x, int64_t n, float* widened,
                                                  Guess* guess, ExactRun* runs) {
  return measure_mini<BFloat16>(x, n, widened, guess, runs);
}

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
