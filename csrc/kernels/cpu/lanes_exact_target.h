// The statistics of a block, run by run, with sums that nothing was rounded from.
// Part of lanes_target.h.

namespace pyparam::cpu::PYPARAM_NAMESPACE {

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
  typename V::Values min, max, least;

  PYPARAM_TARGET PYPARAM_INLINE explicit ExtremeLanes(T first)
      : min(first - typename V::Values{}),
        max(min),
        least(std::numeric_limits<T>::infinity() - typename V::Values{}) {}
  PYPARAM_TARGET PYPARAM_INLINE void take(typename V::Values v) {
    min = v < min ? v : min;
    max = v > max ? v : max;
    least = V::lesser_magnitude(v, least);
  }
  PYPARAM_TARGET PYPARAM_INLINE void finish(RunExtremes<T>& out) const {
    out.min = picked_lane<T>(min, Least());
    out.max = picked_lane<T>(max, Largest());
    out.least = magnitude_bits(picked_lane<T>(least, Least()));
  }
};

// Only loops that wait for memory ask for lines twice (see ahead.h).
template <bool kWaits>
PYPARAM_INLINE void ask_ahead(LinesAhead::Turn& turn, const void* at) {
  if (kWaits) {
    turn.ask(at);
  } else {
    turn.ask_near(at);
  }
}

// Reads a run once: its extremes, and its sums as they are if its magnitudes are of exponents (with
// their bias) up to `exponent`, and down to the span of Sums below it.
template <typename Sums, typename Stored>
PYPARAM_TARGET PYPARAM_INLINE void read_run(const Stored& from, int64_t count, int exponent,
                                            const LinesAhead& ahead, RunExtremes<float>& found,
                                            ExactRun& out) {
  Sums sums(exponent - 127);
  ExtremeLanes<float> extremes(from.first());
  Sixteen x;
  const auto take_extremes = [&]() PYPARAM_TARGET __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int i = 0; i < Sixteen::V::kValues; ++i) extremes.take(x.values[i]);
  };
  constexpr int64_t kPerTurn = LinesAhead::kBytes / Stored::kStoredBytes;
  const int64_t whole = count / kLanes * kLanes;
  int64_t i = 0;
  while (i < whole) {
    LinesAhead::Turn turn = ahead.turn(from.at(i));
    for (const int64_t end = std::min(i + kPerTurn, whole); i < end; i += kLanes) {
      if (i * Stored::kStoredBytes % kLine == 0)
        ask_ahead<kBytes == 64 || Stored::kStoredBytes == 4>(turn, from.at(i));
      from.read(i, x);
      take_extremes();
      sums.take(x);
    }
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
                                            const LinesAhead& ahead, RunExtremes<double>& found,
                                            ExactRun& out) {
  using V = Vectors<double>;
  Sums sums(exponent - 1023);
  ExtremeLanes<double> extremes(from.first());
  constexpr int64_t kPerLine = kLine / 8;
  const auto take = [&](int64_t at) PYPARAM_TARGET __attribute__((always_inline)) {
    const Lanes64 v = V::widen(from.x + at);
    extremes.take(v);
    sums.take(v);
  };
  const int64_t whole = count / kPerLine * kPerLine;
  int64_t i = 0;
  while (i < whole) {
    LinesAhead::Turn turn = ahead.turn(from.at(i));
    for (const int64_t end = std::min(i + LinesAhead::kLines * kPerLine, whole); i < end;
         i += kPerLine) {
      ask_ahead<kBytes == 64>(turn, from.at(i));
#pragma GCC unroll 4
      for (int part = 0; part < kLine / kBytes; ++part) take(i + part * V::kPerDoubles);
    }
  }
  for (; i + V::kPerDoubles <= count; i += V::kPerDoubles) take(i);
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
  return exponent_of(largest) <= exponent ? kWide : kNoKind;
}

template <typename Sums, typename Stored, typename Found>
PYPARAM_TARGET static __attribute__((noinline)) void read_seldom(const Stored& from, int64_t count,
                                                                 int exponent,
                                                                 const LinesAhead& ahead,
                                                                 Found& found, ExactRun& out) {
  read_run<Sums>(from, count, exponent, ahead, found, out);
}

// Values of any size, window by window: those of the first are summed as they are read, and smaller
// ones copied for the next. What is below the last, hardly ever anything, is left to exact.cpp.
template <typename Stored>
PYPARAM_TARGET static __attribute__((noinline)) void read_windows(const Stored& from, int64_t count,
                                                                  int exponent,
                                                                  const LinesAhead& ahead,
                                                                  RunExtremes<float>& found,
                                                                  ExactRun& out) {
  float copies[2][kExactRun + kLanes];
  out = {ExactRun::kParts, exponent, {}, {}, {}};
  const auto keep = [&out](const ExactRun& sums, int window) {
    out.values[window] = sums.values[0];
    out.magnitudes[window] = sums.magnitudes[0];
    std::copy(sums.squares, sums.squares + 2, out.squares + 2 * window);
  };
  ExactRun sums;
  uint32_t least = least_of_window(exponent);
  const Above<Stored> all{from, least, copies[0]};
  read_run<NarrowSums>(all, count, exponent, ahead, found, sums);
  keep(sums, 0);
  int64_t left = all.count;
  for (int window = 1; window < ExactRun::kWindows && left > 0; ++window) {
    exponent -= kExactSpan + 1;
    least = least_of_window(exponent);
    const Above<StoredFloats> rest{{copies[(window + 1) % 2]}, least, copies[window % 2]};
    RunExtremes<float> none;
    read_run<NarrowSums>(rest, left, exponent, LinesAhead(nullptr), none, sums);
    keep(sums, window);
    left = rest.count;
  }
  if (left > 0) out.below = least;
}

// Reads a run for the sums and the exponent that the guess names, and again where they turn out not
// to be exact. The guess becomes what this run needed, if the one before it needed another kind too
// or values are larger than was guessed. Whether all values are finite.
template <typename Stored>
PYPARAM_TARGET PYPARAM_INLINE bool measure_run(const Stored& from, int64_t count, Guess& guess,
                                               RunExtremes<float>& found, ExactRun& out) {
  constexpr SumKind kLeast = Stored::kBriefly ? kBrief : kNarrow;
  const auto kind = static_cast<SumKind>(std::max<uint8_t>(guess.kind, kLeast));
  const LinesAhead ahead(guess.end);
  if (kind == kLeast) {
    read_run<std::conditional_t<Stored::kBriefly, BriefSums, NarrowSums>>(
        from, count, guess.exponent, ahead, found, out);
  } else if (kind == kNarrow) {
    read_seldom<NarrowSums>(from, count, guess.exponent, ahead, found, out);
  } else {
    read_windows(from, count, guess.exponent, ahead, found, out);
  }
  // A NaN that the comparisons passed over is in the sum.
  if (!is_finite(out.values[0])) {
    out.kind = ExactRun::kUnknown;
    return false;
  }
  const uint32_t largest = found.largest();
  const uint32_t least =
      found.least == 0 && largest != 0 ? least_but_zero(from, count) : found.least;
  SumKind needed = kind_for<Stored>(least, largest, guess.exponent);
  if (__builtin_expect(needed == kind, true)) {
    guess.unlike = false;
    return true;
  }
  if (needed > kind) {
    const int exponent = exponent_of(largest);
    needed = kind_for<Stored>(least, largest, exponent);
    if (needed == kWide) {
      read_windows(from, count, exponent, ahead, found, out);
    } else {
      read_seldom<NarrowSums>(from, count, exponent, ahead, found, out);
    }
    if (guess.unlike || exponent > guess.exponent) guess.exponent = exponent;
  }
  if (guess.unlike) guess.kind = needed;
  guess.unlike = !guess.unlike;
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
  const LinesAhead ahead(guess.end);
  read_run<DoubleSums>(from, count, guess.exponent, ahead, found, out);
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
    read_seldom<DoubleSums>(from, count, guess.exponent, ahead, found, out);
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
    all = all && runs->kind != ExactRun::kUnknown && runs->below == 0;
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
  const StoredMinis<Mini> from{x};
  if (guess->exponent == 0) guess->exponent = first_guess(from, n);
  Extremes<float> extremes;
  bool known = false;
  if constexpr (std::is_same_v<Mini, BFloat16>) known = measure_bands(x, n, *guess, extremes, runs);
  if (!known && !measure_runs<float>(from, n, *guess, extremes, runs)) values();
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
