// Sums of bfloat16 values as integers, as many at a time as a vector holds.
// Part of lanes_target.h.

#if PYPARAM_VECTOR_BYTES > 16

namespace pyparam::cpu::PYPARAM_NAMESPACE {

// A bfloat16 is eight bits times a power of two, so that the values of six powers of two, a band,
// are integers below 2^13: `near` those of the largest exponent and of five below it, `far` those
// of the next six. A lane of 32 bits holds 64 of their squares, and one of 16 bits eight of them.
// Zeros are in no band and have no part in the sums. What else lies below the bands, outliers, are
// few in what is mostly measured: one in a thousand of a normal distribution. They are added one by
// one.
//
// What bounds it is the vector units: 21 operations for sixteen values with AVX2, three a cycle,
// and 21 for thirty-two with AVX-512, two a cycle, or 17 where the machine adds products up. In
// lanes of float64 it were 38 for sixteen. Outliers take 1.4 of the 19 and of the 12 cycles for 64
// bytes.
constexpr int kBand = 6;
constexpr int kBandBits = 13;
constexpr int kStepsAtOnce = 8;
constexpr int kSquaresAtOnce = 32;  // steps
static_assert(255 << (kBand - 1) < 1 << kBandBits);
static_assert(kStepsAtOnce << kBandBits <= 1 << 16);
static_assert(2 * kSquaresAtOnce * (int64_t{255} << (kBand - 1)) * (255 << (kBand - 1)) <
              int64_t{1} << 32);
constexpr int kLeastBandExponent = 2 * kBand + 1;  // with its bias: zeros are far below the bands
constexpr int64_t kLeastForBands = 256;            // what ends them takes the time of 100 values
constexpr int kMostOutliers = 128;
constexpr int kMostDeep = 2;            // of outliers that the window does not hold
constexpr uint8_t kBlocksBetween = 16;  // tries where there were more of them

typedef uint16_t Words __attribute__((vector_size(kBytes)));
typedef int16_t SignedWords __attribute__((vector_size(kBytes)));
typedef uint32_t Counts __attribute__((vector_size(kBytes)));
typedef uint64_t LongCounts __attribute__((vector_size(kBytes)));
constexpr int kPerWords = kBytes / 2;

PYPARAM_TARGET static PYPARAM_INLINE Words load_words(const void* from) {
  Words out;
  std::memcpy(&out, from, sizeof(out));
  return out;
}

// What differs between AVX2 and AVX-512.
#if PYPARAM_VECTOR_BYTES == 64
// A bit of each kBitsOfWord for the words that are below the limit.
constexpr int kBitsOfWord = 1;
PYPARAM_TARGET static PYPARAM_INLINE uint32_t bits_below(Words x, Words limit) {
  return _mm512_cmplt_epu16_mask((__m512i)x, (__m512i)limit);
}
// Byte by byte.
PYPARAM_TARGET static PYPARAM_INLINE Words less_at_least_zero(Words a, Words b) {
  return (Words)_mm512_subs_epu8((__m512i)a, (__m512i)b);
}
// Products of bytes, those of x without a sign, and of words; neighbours added.
PYPARAM_TARGET static PYPARAM_INLINE Words picked_times(Words table, Words places, Words x) {
  return (Words)_mm512_maddubs_epi16((__m512i)x,
                                     _mm512_shuffle_epi8((__m512i)table, (__m512i)places));
}
PYPARAM_TARGET static PYPARAM_INLINE Counts products(Words a, Words b) {
  return (Counts)_mm512_madd_epi16((__m512i)a, (__m512i)b);
}
PYPARAM_TARGET static PYPARAM_INLINE __m256i half_of(LongCounts x, int upper) {
  return upper == 0 ? (__m256i)__builtin_shufflevector(x, x, 0, 1, 2, 3)
                    : (__m256i)__builtin_shufflevector(x, x, 4, 5, 6, 7);
}
#else
constexpr int kBitsOfWord = 2;
PYPARAM_TARGET static PYPARAM_INLINE uint32_t bits_below(Words x, Words limit) {
  const Words not_below = (Words)((x > limit ? x : limit) == x);
  return 0x55555555U & ~static_cast<uint32_t>(_mm256_movemask_epi8((__m256i)not_below));
}
PYPARAM_TARGET static PYPARAM_INLINE Words less_at_least_zero(Words a, Words b) {
  return (Words)_mm256_subs_epu8((__m256i)a, (__m256i)b);
}
PYPARAM_TARGET static PYPARAM_INLINE Words picked_times(Words table, Words places, Words x) {
  return (Words)_mm256_maddubs_epi16((__m256i)x,
                                     _mm256_shuffle_epi8((__m256i)table, (__m256i)places));
}
PYPARAM_TARGET static PYPARAM_INLINE Counts products(Words a, Words b) {
  return (Counts)_mm256_madd_epi16((__m256i)a, (__m256i)b);
}
#endif

PYPARAM_TARGET static PYPARAM_INLINE void add_products(Counts& to, Words a, Words b) {
#if defined(PYPARAM_ADDS_PRODUCTS)
  to = (Counts)_mm512_dpwssd_epi32((__m512i)to, (__m512i)a, (__m512i)b);
#else
  to += products(a, b);
#endif
}

// Of a vector's lanes what pick leaves in sixteen bytes.
template <typename Vector, typename Pick>
PYPARAM_TARGET static PYPARAM_INLINE __m128i folded(Vector x, const Pick& pick) {
#if PYPARAM_VECTOR_BYTES == 64
  const __m256i half = pick(half_of((LongCounts)x, 0), half_of((LongCounts)x, 1));
#else
  const auto half = (__m256i)x;
#endif
  return pick(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}
// Of lanes of T, whatever the vector says it has.
template <typename T>
struct AddLanes {
  template <typename Vector>
  PYPARAM_TARGET PYPARAM_INLINE Vector operator()(Vector a, Vector b) const {
    typedef T Lanes __attribute__((vector_size(sizeof(Vector))));
    return (Vector)((Lanes)a + (Lanes)b);
  }
};
struct LeastWords {
  template <typename Vector>
  PYPARAM_TARGET PYPARAM_INLINE Vector operator()(Vector a, Vector b) const {
    typedef uint16_t Lanes __attribute__((vector_size(sizeof(Vector))));
    return (Vector)Least()((Lanes)a, (Lanes)b);
  }
};
PYPARAM_TARGET static PYPARAM_INLINE uint64_t total(LongCounts lanes) {
  const __m128i two = folded(lanes, AddLanes<uint64_t>());
  return static_cast<uint64_t>(_mm_extract_epi64(two, 0) + _mm_extract_epi64(two, 1));
}
PYPARAM_TARGET static PYPARAM_INLINE uint32_t least_word(Words x) {
  return static_cast<uint16_t>(_mm_extract_epi16(_mm_minpos_epu16(folded(x, LeastWords())), 0));
}

PYPARAM_TARGET static PYPARAM_INLINE __m128i four(Counts lanes) {
  return folded(lanes, AddLanes<uint32_t>());
}

// Sums of integers of 16 bits: a few steps in lanes of as many, then in lanes of 32. The short ones
// begin at the least number that they hold as signed ones, which are what is added up in pairs.
struct PairedSums {
  static constexpr uint16_t kLeast = 0x8000;
  Words few = kLeast + Words{};
  Counts many{};

  PYPARAM_TARGET PYPARAM_INLINE void flush() {
    add_products(many, few, 1 + Words{});
    few = kLeast + Words{};
  }
};

struct BandSums {
  PairedSums magnitudes;
  Counts less_negatives{};  // the sum of those magnitudes, negated
  Counts squares{};
  LongCounts flushed_squares{};

  // `sign` is -1 of what is negative, else 0.
  PYPARAM_TARGET PYPARAM_INLINE void take(Words x, Words sign) {
    magnitudes.few += x;
    add_products(less_negatives, x, sign);
    add_products(squares, x, x);
  }
  PYPARAM_TARGET PYPARAM_INLINE void flush_squares() {
    flushed_squares += ((LongCounts)squares & 0xffffffffU) + ((LongCounts)squares >> 32);
    squares = Counts{};
  }
};

constexpr int64_t kGroup = kStepsAtOnce * kPerWords;
static_assert(kGroup * 2 <= LinesAhead::kBytes);

// The values of a group, at most kGroup from x on, among which outliers or zeros are; in these
// places of its vectors, unless it is less than whole.
struct Suspects {
  const uint16_t* x;
  int32_t count;
  uint32_t places;
};

struct Outliers {
  uint16_t values[kMostOutliers + kGroup];
  int count = 0;

  // Whether they are few yet.
  PYPARAM_TARGET __attribute__((noinline)) bool find(const Suspects* groups, int64_t n,
                                                     uint16_t limit) {
    for (int64_t g = 0; g < n && count <= kMostOutliers; ++g) {
      const auto [x, length, places] = groups[g];
      if (length == kGroup && __builtin_popcount(places) <= 4) {
        for (uint32_t bits = places; bits != 0; bits &= bits - 1) {
          take_column(x + __builtin_ctz(bits) / kBitsOfWord, limit);
        }
      } else {
        look_at(x, length, limit);
      }
    }
    return count <= kMostOutliers;
  }
  // Adds them to the window's sums, but for deep ones, which another run gets. Whether there were
  // few enough of those.
  bool add_to(ExactRun& window, ExactRun* other) const {
    const uint32_t held = static_cast<uint32_t>(std::max(0, window.exponent - kExactSpan)) << 7;
    double squares = 0;
    int deep = 0;
    for (int i = 0; i < count; ++i) {
      const uint32_t magnitude = values[i] & 0x7fffU;
      const double value = BFloat16::value(values[i]);
      const double size = BFloat16::value(static_cast<uint16_t>(magnitude));
      if (magnitude >= held) {
        window.values[0] += value;
        window.magnitudes[0] += size;
        squares += size * size;
      } else {
        if (other == nullptr || deep == kMostDeep) return false;
        if (deep == 0) *other = {ExactRun::kParts, window.exponent, {}, {}, {}};
        other->values[deep] = value;
        other->magnitudes[deep] = size;
        other->squares[deep] = size * size;
        ++deep;
      }
    }
    const double unit = power_of_two(2 * (window.exponent - 127) + 13);
    const double high = (squares + unit) - unit;
    window.squares[0] += high;
    window.squares[1] = squares - high;
    return true;
  }

 private:
  // Of the words at one place of a group's vectors, of which one at least is an outlier or zero.
  PYPARAM_TARGET PYPARAM_INLINE void take_column(const uint16_t* x, uint16_t limit) {
    static_assert(kStepsAtOnce == 8);
    typedef uint16_t Column __attribute__((vector_size(16)));
    Column column;
#pragma GCC unroll 8
    for (int step = 0; step < kStepsAtOnce; ++step) column[step] = x[step * kPerWords];
    // Zeros are the largest, less one.
    const auto below = (Column)(((column & 0x7fff) - 1) < static_cast<uint16_t>(limit - 1));
    for (uint32_t bits = 0x5555U & static_cast<uint32_t>(_mm_movemask_epi8((__m128i)below));
         bits != 0; bits &= bits - 1)
      values[count++] = x[__builtin_ctz(bits) / 2 * kPerWords];
  }
  PYPARAM_INLINE void take_if(uint16_t x, uint16_t limit) {
    // Zeros are the largest, less one.
    values[count] = x;
    count += static_cast<uint16_t>((x & 0x7fff) - 1) < limit - 1 ? 1 : 0;
  }
  PYPARAM_TARGET PYPARAM_INLINE void look_at(const uint16_t* x, int64_t n, uint16_t limit) {
    int64_t i = 0;
    for (; i + kPerWords <= n; i += kPerWords) {
      const Words less_one = (load_words(x + i) & 0x7fff) - 1;
      uint32_t bits = bits_below(less_one, static_cast<uint16_t>(limit - 1) - Words{});
      for (; bits != 0; bits &= bits - 1)
        values[count++] = x[i + __builtin_ctz(bits) / kBitsOfWord];
    }
    for (; i < n; ++i) take_if(x[i], limit);
  }
};

// The sums and extremes of a block, for an exponent with its bias.
struct Bands {
  BandSums near, far;
  int flushes = 0;
  // As signed words the largest is the largest value, unless all are negative; as unsigned ones it
  // is the lowest, if any is negative.
  SignedWords top;
  Words bottom;
  Words least = 0xffff - Words{};  // of magnitudes, doubled: the upper byte is the exponent
  const Words below;  // the exponent below the bands, and a lower byte above all others
  const Words limit;  // twice the magnitude above it
  Words near_weights, far_weights;

  PYPARAM_TARGET PYPARAM_INLINE Bands(int exponent, uint16_t first)
      : top(static_cast<int16_t>(first) - SignedWords{}),
        bottom(first - Words{}),
        below(static_cast<uint16_t>((exponent - 2 * kBand) << 8 | 0xff) - Words{}),
        limit(below + 1) {
    // By how far the exponent is above `below`.
    alignas(16) uint8_t of_near[16] = {};
    alignas(16) uint8_t of_far[16] = {};
    for (int i = 0; i < kBand; ++i) of_far[1 + i] = of_near[1 + kBand + i] = 1U << i;
    for (int i = 0; i < kBytes; i += 16) {
      std::memcpy(reinterpret_cast<char*>(&far_weights) + i, of_far, 16);
      std::memcpy(reinterpret_cast<char*>(&near_weights) + i, of_near, 16);
    }
  }
  PYPARAM_TARGET PYPARAM_INLINE void look(Words x, Words& least_of_group) {
    const Words doubled = x + x;
    top = (SignedWords)x > top ? (SignedWords)x : top;
    bottom = x > bottom ? x : bottom;
    least_of_group = doubled < least_of_group ? doubled : least_of_group;
  }
  // `shifted` has the lower bytes of x in the upper ones, and anything in the lower ones.
  PYPARAM_TARGET PYPARAM_INLINE void add(Words x, Words shifted) {
    // The lower bytes are zero, and so are the weights that they pick.
    const Words places = less_at_least_zero(x + x, below);
    const Words mantissa = shifted | 0x8000;
    const auto sign = (Words)((SignedWords)x >> 15);
    near.take(picked_times(near_weights, places, mantissa), sign);
    far.take(picked_times(far_weights, places, mantissa), sign);
  }
  // So many values, at most kGroup; the byte before them can be read, unless they are the first of
  // their block. Which places of its vectors have zeros or outliers.
  PYPARAM_TARGET PYPARAM_INLINE uint32_t take(const uint16_t* x, int64_t count, bool first,
                                              const LinesAhead& ahead) {
    Words least_of_group = 0xffff - Words{};
    LinesAhead::Turn turn = ahead.turn(x);
    int64_t i = 0;
#pragma GCC unroll 8
    for (; i + kPerWords <= count; i += kPerWords) {
      if (kBytes == 64) {
        turn.ask(x + i);
      } else if (i * 2 % kLine == 0) {
        turn.ask_near(x + i);
      }
      const Words values = load_words(x + i);
      look(values, least_of_group);
      // Read from one byte before.
      add(values,
          i == 0 && first ? values << 8 : load_words(reinterpret_cast<const char*>(x + i) - 1));
    }
    if (i < count) {
      uint16_t rest[kPerWords] = {};
      uint16_t others[kPerWords];
      for (uint16_t& other : others) other = x[i];
      for (int lane = 0; i + lane < count; ++lane) rest[lane] = others[lane] = x[i + lane];
      const Words values = load_words(rest);
      add(values, values << 8);
      look(load_words(others), least_of_group);
    }
    near.magnitudes.flush();
    far.magnitudes.flush();
    ++flushes;
    least = least_of_group < least ? least_of_group : least;
    return bits_below(least_of_group, limit);
  }
  PYPARAM_TARGET PYPARAM_INLINE void flush_squares() {
    near.flush_squares();
    far.flush_squares();
  }
  PYPARAM_TARGET PYPARAM_INLINE void finish(int exponent, Extremes<float>& extremes,
                                            ExactRun& out) const {
    const auto value = [](uint32_t bits) { return bit_cast<float>(bits << 16); };
    const uint32_t largest = 0x7fffU ^ least_word((Words)top ^ 0x7fff);
    const uint32_t lowest = 0xffffU ^ least_word(bottom ^ 0xffff);
    const uint32_t smallest = least_word(least) >> 1;
    extremes.max = value((largest & 0x8000U) == 0 ? largest : 0x8000U | smallest);
    extremes.min = value((lowest & 0x8000U) != 0 ? lowest : smallest);
    extremes.least = static_cast<int32_t>(smallest << 16);
    extremes.finite = is_finite(extremes.max) && is_finite(extremes.min);

    const __m128i sums =
        _mm_hadd_epi32(_mm_hadd_epi32(four(near.magnitudes.many), four(far.magnitudes.many)),
                       _mm_hadd_epi32(four(near.less_negatives), four(far.less_negatives)));
    const int start = (flushes * (kBytes / 4)) << 16;  // what the short sums began at
    // In units of the far band's last bit.
    const int64_t magnitudes = (int64_t{_mm_extract_epi32(sums, 0) + start} << kBand) +
                               (_mm_extract_epi32(sums, 1) + start);
    const int64_t less_negatives =
        int64_t{_mm_extract_epi32(sums, 2)} * (1 << kBand) + _mm_extract_epi32(sums, 3);
    const uint64_t squares =
        (total(near.flushed_squares) << (2 * kBand)) + total(far.flushed_squares);
    const double unit = power_of_two(exponent - 127 - (2 * kBand - 1) - 7);
    out.kind = ExactRun::kWindow;
    out.exponent = exponent;
    out.values[0] = static_cast<double>(magnitudes + 2 * less_negatives) * unit;
    out.magnitudes[0] = static_cast<double>(magnitudes) * unit;
    out.squares[0] = static_cast<double>(squares) * (unit * unit);
    out.squares[1] = 0;
  }
};

PYPARAM_TARGET static __attribute__((noinline)) bool read_bands(const uint16_t* x, int64_t n,
                                                                int exponent, const void* end,
                                                                Extremes<float>& extremes,
                                                                ExactRun* runs) {
  constexpr int kGroupsAtOnce = kSquaresAtOnce / kStepsAtOnce;
  const LinesAhead ahead(end);
  Bands bands(exponent, x[0]);
  Suspects suspects[kBlock / kGroup];
  int64_t groups = 0;
  for (int64_t done = 0; done < n; done += kGroup) {
    const int64_t count = std::min(kGroup, n - done);
    const uint32_t places = bands.take(x + done, count, done == 0, ahead);
    suspects[groups] = {x + done, static_cast<int32_t>(count), places};
    groups += places != 0 ? 1 : 0;
    if (bands.flushes % kGroupsAtOnce == 0) bands.flush_squares();
  }
  bands.flush_squares();
  bands.finish(exponent, extremes, runs[0]);
  Outliers outliers;
  if (extremes.finite && !outliers.find(suspects, groups, bands.limit[0] >> 1)) return false;
  // What the first run holds, the others do not.
  const int64_t count = (n + kExactRun - 1) / kExactRun;
  for (int64_t i = 1; i < count; ++i) runs[i] = {ExactRun::kWindow, exponent, {}, {}, {}};
  return outliers.add_to(runs[0], count > 1 ? &runs[1] : nullptr);
}

// The sums of a block, in its first runs; false where they are not known so.
PYPARAM_TARGET static PYPARAM_INLINE bool measure_bands(const uint16_t* x, int64_t n, Guess& guess,
                                                        Extremes<float>& extremes, ExactRun* runs) {
  if (n < kLeastForBands) return false;
  if (guess.bandless > 0) {
    --guess.bandless;
    return false;
  }
  for (int tries = 0; tries < 3; ++tries) {
    if (guess.exponent < kLeastBandExponent) return false;
    const bool known = read_bands(x, n, guess.exponent, guess.end, extremes, runs);
    if (!extremes.finite) break;
    const uint32_t largest = std::max(magnitude_bits(extremes.min), magnitude_bits(extremes.max));
    const int exponent = std::max(1, static_cast<int>(largest >> 23));
    if (known && exponent <= guess.exponent) return true;
    if (exponent == guess.exponent) break;
    guess.exponent = exponent;
  }
  guess.bandless = kBlocksBetween;
  return false;
}

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE

#endif
