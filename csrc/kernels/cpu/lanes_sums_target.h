// The kinds of sums that nothing is rounded from.
// Part of lanes_target.h.

namespace pyparam::cpu::PYPARAM_NAMESPACE {

// The sums of float32 values in float64 lanes, of which each kind below keeps as many as its values
// need so that nothing is rounded: see exact.cpp. The exponent is the largest value's, without its
// bias.
static_assert(kExactRun << (WindowUnits::kLowest + 1) <= int64_t{1} << 53);
// In few registers: the lanes of so many vectors, in whatever order, as nothing is rounded.
constexpr int kSumVectors = 2;
using SumLanes = Lanes64[kSumVectors];
typedef uint64_t Words64 __attribute__((vector_size(kBytes)));

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

// Of sixteen lanes the sums of each vector's.
PYPARAM_TARGET static PYPARAM_INLINE Lanes64 added_up(const Lanes64 (&x)[kLaneVectors]) {
  if constexpr (kLaneVectors == 2) {
    return x[0] + x[1];
  } else if constexpr (kLaneVectors == 4) {
    return (x[0] + x[1]) + (x[2] + x[3]);
  } else {
    return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
  }
}

#if PYPARAM_VECTOR_BYTES > 16
PYPARAM_TARGET static PYPARAM_INLINE __m256d fold(Lanes64 x) {
#if PYPARAM_VECTOR_BYTES == 64
  return (__m256d)__builtin_shufflevector(x, x, 0, 1, 2, 3) +
         (__m256d)__builtin_shufflevector(x, x, 4, 5, 6, 7);
#else
  return (__m256d)x;
#endif
}
#endif

// The sums of four vectors' lanes.
PYPARAM_TARGET static PYPARAM_INLINE void fold_four(Lanes64 a, Lanes64 b, Lanes64 c, Lanes64 d,
                                                    double (&out)[4]) {
#if PYPARAM_VECTOR_BYTES > 16
  const __m256d first = _mm256_hadd_pd(fold(a), fold(b));
  const __m256d second = _mm256_hadd_pd(fold(c), fold(d));
  _mm256_storeu_pd(out, _mm256_add_pd(_mm256_permute2f128_pd(first, second, 0x20),
                                      _mm256_permute2f128_pd(first, second, 0x31)));
#else
  out[0] = a[0] + a[1];
  out[1] = b[0] + b[1];
  out[2] = c[0] + c[1];
  out[3] = d[0] + d[1];
#endif
}
PYPARAM_TARGET static PYPARAM_INLINE void set_window(const double (&sums)[4], ExactRun& out) {
  out.kind = ExactRun::kWindow;
  out.values[0] = sums[0];
  out.magnitudes[0] = sums[1];
  out.squares[0] = sums[2];
  out.squares[1] = sums[3];
}

// Values of eight bits: a lane holds 128 or 256 squares as they are.
struct BriefSums {
  static constexpr int kSpan = PYPARAM_VECTOR_BYTES == 64 ? 15 : 14;
  Lanes64 sum{}, l1{};
  SumLanes squares{};
  double unit;

  PYPARAM_TARGET PYPARAM_INLINE explicit BriefSums(int exponent)
      : unit(power_of_two(2 * exponent + 13)) {}
  PYPARAM_TARGET PYPARAM_INLINE void take(const Sixteen& x) {
    Lanes64 magnitudes[kLaneVectors];
#pragma GCC unroll 16
    for (int i = 0; i < kLaneVectors; ++i) {
      const Lanes64 v = x.lanes[i];
      const int to = i % kSumVectors;
      squares[to] = Vectors<float>::add_square(squares[to], v);
      magnitudes[i] = Vectors<float>::abs(v);
    }
    sum += added_up(x.lanes);
    l1 += added_up(magnitudes);
  }
  PYPARAM_TARGET PYPARAM_INLINE void finish(ExactRun& out) {
    // All lanes together are too many bits.
    SumLanes high, low;
    for (int i = 0; i < kSumVectors; ++i) {
      high[i] = (squares[i] + unit) - unit;
      low[i] = squares[i] - high[i];
    }
    double sums[4];
    fold_four(sum, l1, high[0] + high[1], low[0] + low[1], sums);
    set_window(sums, out);
  }
};

#if defined(PYPARAM_MULTIPLIES_52_BITS)
PYPARAM_TARGET static PYPARAM_INLINE uint64_t folded_words(Words64 x) {
  const auto half = (__m256i)(__builtin_shufflevector(x, x, 0, 1, 2, 3) +
                              __builtin_shufflevector(x, x, 4, 5, 6, 7));
  const __m128i two =
      _mm_add_epi64(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  return static_cast<uint64_t>(_mm_extract_epi64(two, 0) + _mm_extract_epi64(two, 1));
}

// A magnitude is an integer of 42 bits in units of the least one's last bit. Added to 2^52 units it
// is the last 52 bits of a float64, which are what the machine multiplies: it adds up the lower and
// the upper 52 bits of the squares. Of two rounded sums and what they leave there were 19
// operations for sixteen values, of these there are 17. NaNs and infinities are in the sum of
// values alone.
struct NarrowSums {
  static constexpr int kSpan = kExactSpan;
  SumLanes sum{};
  Words64 magnitudes[kSumVectors]{}, lower[kSumVectors]{}, upper[kSumVectors]{};
  double unit, shift;
  uint64_t taken = 0;

  PYPARAM_TARGET PYPARAM_INLINE explicit NarrowSums(int exponent)
      : unit(power_of_two(exponent - WindowUnits::kLowest)),
        shift(power_of_two(exponent - WindowUnits::kLowest + 52)) {
    static_assert(WindowUnits::kLowest + 1 <= 52);
  }
  PYPARAM_TARGET PYPARAM_INLINE void take(const Sixteen& x) {
    static_assert(kLaneVectors == kSumVectors);
#pragma GCC unroll 16
    for (int i = 0; i < kLaneVectors; ++i) {
      const Lanes64 v = x.lanes[i];
      const auto shifted = (Words64)(Vectors<float>::abs(v) + shift);
      sum[i] += v;
      magnitudes[i] += shifted;
      const auto bits = (__m512i)shifted;
      lower[i] = (Words64)_mm512_madd52lo_epu64((__m512i)lower[i], bits, bits);
      upper[i] = (Words64)_mm512_madd52hi_epu64((__m512i)upper[i], bits, bits);
    }
    ++taken;
  }
  PYPARAM_TARGET PYPARAM_INLINE void finish(ExactRun& out) const {
    const uint64_t sizes =
        folded_words(magnitudes[0] + magnitudes[1]) - taken * kLanes * bit_cast<uint64_t>(shift);
    const uint64_t low = folded_words(lower[0] + lower[1]);
    const uint64_t high = folded_words(upper[0] + upper[1]);
    constexpr int kRest = WindowUnits::kRest;
    const uint64_t many = (high << (52 - kRest)) + (low >> kRest);
    const uint64_t rest = low & ((uint64_t{1} << kRest) - 1);
    const double square = unit * unit;
    out.kind = ExactRun::kWindow;
    out.values[0] = add_lanes(sum);
    out.magnitudes[0] = static_cast<double>(sizes) * unit;
    out.squares[0] = static_cast<double>(many) * (square * power_of_two(kRest));
    out.squares[1] = static_cast<double>(rest) * square;
  }
};
#else
// `high` takes the square's multiple of a fixed unit, `low` what is left of it. Sixteen values are
// added up before they are added: of an accumulator each, all stay in registers, of which AVX2 has
// sixteen. From memory such a sum comes seven cycles after it went there, for each of two vectors.
struct NarrowSums {
  static constexpr int kSpan = kExactSpan;
  Lanes64 sum{}, l1{}, low{};
  SumLanes high;
  double unit;

  PYPARAM_TARGET PYPARAM_INLINE explicit NarrowSums(int exponent)
      : unit(power_of_two(2 * exponent + 13)) {
    for (Lanes64& lane : high) lane = unit - Lanes64{};
  }
  PYPARAM_TARGET PYPARAM_INLINE void take(const Sixteen& x) {
    Lanes64 magnitudes[kLaneVectors], rests[kLaneVectors];
#pragma GCC unroll 16
    for (int i = 0; i < kLaneVectors; ++i) {
      const Lanes64 v = x.lanes[i];
      const int to = i % kSumVectors;
      const Lanes64 next = Vectors<float>::add_square(high[to], v);
      rests[i] = Vectors<float>::add_square(high[to] - next, v);
      high[to] = next;
      magnitudes[i] = Vectors<float>::abs(v);
    }
    low += added_up(rests);
    sum += added_up(x.lanes);
    l1 += added_up(magnitudes);
  }
  PYPARAM_TARGET PYPARAM_INLINE void finish(double (&sums)[4]) {
    for (Lanes64& lane : high) lane = lane - unit;
    fold_four(sum, l1, high[0] + high[1], low, sums);
  }
  PYPARAM_TARGET PYPARAM_INLINE void finish(ExactRun& out) {
    double sums[4];
    finish(sums);
    set_window(sums, out);
  }
};
#endif

// Of float64 values: squares rounded to float64, and what that rounding leaves, each in three
// parts.
struct DoubleSums {
  static constexpr int kSpan = 30;
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
    out.values[2] = out.magnitudes[2] = 0;
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

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
