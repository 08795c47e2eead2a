// The rows of tensors of few values: see few.h.
// Part of lanes_target.h.

namespace pyparam::cpu::PYPARAM_NAMESPACE {

typedef float FourFloats __attribute__((vector_size(16)));

#if PYPARAM_VECTOR_BYTES == 64
// Half of x and half of y.
PYPARAM_TARGET static PYPARAM_INLINE __m512 least_halves(__m512 x, __m512 y) {
  return _mm512_maskz_min_ps(0xffff, _mm512_maskz_shuffle_f32x4(0xffff, x, y, 0x44),
                             _mm512_maskz_shuffle_f32x4(0xffff, x, y, 0xee));
}
#endif

// The least of the lanes of each.
PYPARAM_TARGET static PYPARAM_INLINE FourFloats least_of_four(const Vectors<float>::Values& a,
                                                              const Vectors<float>::Values& b,
                                                              const Vectors<float>::Values& c,
                                                              const Vectors<float>::Values& d) {
#if PYPARAM_VECTOR_BYTES == 64
  const __m512 two = least_halves((__m512)a, (__m512)b);
  const __m512 others = least_halves((__m512)c, (__m512)d);
  // A quarter each.
  __m512 all = _mm512_maskz_min_ps(0xffff, _mm512_maskz_shuffle_f32x4(0xffff, two, others, 0x88),
                                   _mm512_maskz_shuffle_f32x4(0xffff, two, others, 0xdd));
  all = _mm512_maskz_min_ps(0xffff, all, _mm512_maskz_permute_ps(0xffff, all, 0x4e));
  all = _mm512_maskz_min_ps(0xffff, all, _mm512_maskz_permute_ps(0xffff, all, 0xb1));
  const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  const auto in_front = (Floats)_mm512_maskz_permutexvar_ps(0xffff, firsts, all);
  return (FourFloats)__builtin_shufflevector(in_front, in_front, 0, 1, 2, 3);
#else
#if PYPARAM_VECTOR_BYTES == 32
  const auto half = [](__m256 x) PYPARAM_TARGET __attribute__((always_inline)) {
    return (FourFloats)_mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  };
  const FourFloats w = half((__m256)a);
  const FourFloats x = half((__m256)b);
  const FourFloats y = half((__m256)c);
  const FourFloats z = half((__m256)d);
#else
  const FourFloats w = a, x = b, y = c, z = d;
#endif
  const Least least;
  const FourFloats two =
      least(__builtin_shufflevector(w, x, 0, 4, 1, 5), __builtin_shufflevector(w, x, 2, 6, 3, 7));
  const FourFloats others =
      least(__builtin_shufflevector(y, z, 0, 4, 1, 5), __builtin_shufflevector(y, z, 2, 6, 3, 7));
  return least(__builtin_shufflevector(two, others, 0, 1, 4, 5),
               __builtin_shufflevector(two, others, 2, 3, 6, 7));
#endif
}

// What is found of one tensor: its least value, its largest and its least and largest magnitude,
// the larger ones with the other sign, so that the least of four is taken at once; and the sums of
// a window. NaNs are passed over but in the sums.
struct Few {
  enum { kLeastValue, kLessLargest, kLeastMagnitude, kLessLargestMagnitude };
  alignas(16) float extremes[4];
  double sums[4];

  PYPARAM_TARGET PYPARAM_INLINE uint32_t least() const {
    return bit_cast<uint32_t>(extremes[kLeastMagnitude]);
  }
  PYPARAM_TARGET PYPARAM_INLINE uint32_t largest() const {
    return magnitude_bits(extremes[kLessLargestMagnitude]);
  }
};

template <typename Stored>
PYPARAM_TARGET static PYPARAM_INLINE void read_few(const Stored& from, int64_t n, int exponent,
                                                   Few& out) {
  using V = Vectors<float>;
  using Values = V::Values;
  constexpr float kMost = std::numeric_limits<float>::infinity();
  NarrowSums sums(exponent - 127);
  Values min = kMost - Values{};
  Values max = -min;
  Values least = min;
  Sixteen x;
  const auto take_extremes = [&]() PYPARAM_TARGET __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int i = 0; i < V::kValues; ++i) {
      const Values v = x.values[i];
      min = v < min ? v : min;
      max = v > max ? v : max;
      least = V::lesser_magnitude(v, least);
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    from.read(i, x);
    take_extremes();
    sums.take(x);
  }
  if (i < n) {
    const int rest = static_cast<int>(n - i);
    from.read_rest(i, rest, x);
    sums.take(x);
    fill_up(x, rest, from.first());
    take_extremes();
  }
  const Values less_max = -max;
  const FourFloats four = least_of_four(min, less_max, least, less_max < min ? less_max : min);
  std::memcpy(out.extremes, &four, sizeof(four));
  sums.finish(out.sums);
}

template <typename Stored>
PYPARAM_TARGET static __attribute__((noinline)) void read_few_again(const Stored& from, int64_t n,
                                                                    int exponent, Few& out) {
  read_few(from, n, exponent, out);
}

// What holds for sums that are made for one exponent.
struct FewBounds {
  static constexpr int kFormats = 3;
  int exponent;
  WindowUnits units;
  // The four extremes of a tensor without zeros and subnormals whose sums are exact are not below
  // these.
  alignas(16) float least[kFormats][4];

  explicit FewBounds(int biased) : exponent(biased), units(biased) {
    const auto lowest = static_cast<uint32_t>(std::max(biased - NarrowSums::kSpan, 1));
    const auto above = static_cast<uint32_t>(biased + 1);
    const Format formats[kFormats] = {Format::kFloat, Format::kHalf, Format::kBFloat16};
    for (int i = 0; i < kFormats; ++i) {
      float* four = least[i];
      four[Few::kLeastValue] = four[Few::kLessLargest] = -std::numeric_limits<float>::infinity();
      four[Few::kLeastMagnitude] =
          std::max(bit_cast<float>(lowest << 23), smallest_normal(formats[i]));
      four[Few::kLessLargestMagnitude] = -bit_cast<float>((above << 23) - 1);
    }
  }
};

PYPARAM_TARGET static PYPARAM_INLINE bool none_below(const float (&x)[4],
                                                     const float (&bounds)[4]) {
#if defined(__x86_64__)
  return _mm_movemask_ps(_mm_cmplt_ps(_mm_load_ps(x), _mm_load_ps(bounds))) == 0;
#else
  bool below = false;
  for (int i = 0; i < 4; ++i) below |= x[i] < bounds[i];
  return !below;
#endif
}

// A tensor with zeros or subnormals, or one for which the sums were made for the wrong exponent:
// then it is read again, and the bounds become what it needed. False if it cannot be summed so.
template <typename Stored>
PYPARAM_TARGET static __attribute__((noinline)) bool measure_odd(const Stored& from, int64_t n,
                                                                 float normal, FewBounds& bounds,
                                                                 Few& few, Statistics& counted) {
  const uint32_t largest = few.largest();
  if (largest == 0) {
    counted.zeros = n;
    return true;
  }
  if (largest >= bit_cast<uint32_t>(std::numeric_limits<float>::infinity())) return false;
  uint32_t zeros = 0;
  uint32_t small = 0;
  uint32_t least = largest;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = from.bits(i);
    zeros += bits == 0;
    small += bits < bit_cast<uint32_t>(normal);
    least = bits - 1U < least - 1U ? bits : least;
  }
  counted.zeros = zeros;
  counted.subnormals = small - zeros;
  if (holds<NarrowSums>(least, largest, bounds.exponent)) return true;
  const int exponent = exponent_of(largest);
  if (!holds<NarrowSums>(least, largest, exponent)) return false;
  bounds = FewBounds(exponent);
  read_few_again(from, n, exponent, few);
  return true;
}

// Rows that are rounded together.
struct FewRows {
  static constexpr int kRows = 8;

  alignas(64) int64_t sums[kRows][4];  // in units of a window
  alignas(64) float extremes[kRows][4];
  int64_t row[kRows];
  int64_t count[kRows];
  int exponent[kRows];
  int rows = 0;

  PYPARAM_TARGET PYPARAM_INLINE void append(int64_t index, int64_t n, const Few& few,
                                            const WindowUnits& units) {
#if PYPARAM_VECTOR_BYTES == 64
    _mm256_store_si256(
        reinterpret_cast<__m256i*>(sums[rows]),
        _mm256_maskz_cvttpd_epi64(
            0xf, _mm256_mul_pd(_mm256_loadu_pd(few.sums), _mm256_loadu_pd(units.scales))));
#else
    for (int i = 0; i < 4; ++i) sums[rows][i] = static_cast<int64_t>(few.sums[i] * units.scales[i]);
#endif
    std::memcpy(extremes[rows], few.extremes, sizeof(few.extremes));
    row[rows] = index;
    count[rows] = n;
    exponent[rows] = units.exponent;
    ++rows;
  }

  void add_to(const FewTotals& totals) const {
    for (int i = 0; i < rows;) {
      exact::Window window{exponent[i], false};
      int64_t counted = 0;
      int64_t high = 0;
      int64_t low = 0;
      for (const int first = i; i < rows && exponent[i] == exponent[first]; ++i) {
        window.values += sums[i][0];
        window.magnitudes += sums[i][1];
        high += sums[i][2];
        low += sums[i][3];
        counted += count[i];
      }
      window.squares = WindowUnits::squares(high, low);
      totals.windows.add(window, counted, totals.sums);
    }
  }
};

using EightRows = exact::Pairs<FewRows::kRows>;

// A number below 2^52, as bits of a float64.
PYPARAM_INLINE double float_of(uint64_t n) {
  return bit_cast<double>(n | uint64_t{0x433} << 52) - 0x1p52;
}

// Numbers below 2^100 in units of their rows' own, from their bits above and below 2^48.
PYPARAM_TARGET static PYPARAM_INLINE void set_pairs(const uint64_t (&upper)[FewRows::kRows],
                                                    const uint64_t (&lower)[FewRows::kRows],
                                                    EightRows& out) {
  for (int i = 0; i < FewRows::kRows; ++i) {
    const double high = 0x1p48 * float_of(upper[i]);
    const double low = float_of(lower[i]);
    const double sum = high + low;
    out.high[i] = sum;
    out.low[i] = low - (sum - high);
  }
}

// What write_sums (kernels/exact.h) does with each row's window: the number of values times the sum
// of squares is below 2^100, as there are few.
PYPARAM_TARGET static __attribute__((noinline)) void round_rows(FewRows& rows,
                                                                const FewTensors& tensors) {
  constexpr int kRows = FewRows::kRows;
  constexpr bool kMultiplies = PYPARAM_VECTOR_BYTES > 16;
  constexpr uint64_t kLower = (uint64_t{1} << 48) - 1;
  static_assert(2 * exact::Window::kBits + 2 * 8 <= 100 && Elements::kFew <= 1 << 8);
  alignas(64) uint64_t total[kRows], magnitudes[kRows], squares[2][kRows], spread[2][kRows];
  for (int i = 0; i < kRows; ++i) {
    const int64_t* sums = rows.sums[i];
    total[i] = exact::magnitude_of(sums[0]);
    magnitudes[i] = static_cast<uint64_t>(sums[1]);
    const auto sum = static_cast<unsigned __int128>(WindowUnits::squares(sums[2], sums[3]));
    squares[0][i] = static_cast<uint64_t>(sum >> 48);
    squares[1][i] = static_cast<uint64_t>(sum) & kLower;
    const unsigned __int128 about_mean = static_cast<uint64_t>(rows.count[i]) * sum -
                                         static_cast<unsigned __int128>(total[i]) * total[i];
    spread[0][i] = static_cast<uint64_t>(about_mean >> 48);
    spread[1][i] = static_cast<uint64_t>(about_mean) & kLower;
  }
  alignas(64) double n[kRows], inverse[kRows], less_one[kRows], inverse_less_one[kRows];
  alignas(64) double unit[kRows], sign[kRows];
  for (int i = 0; i < kRows; ++i) {
    n[i] = float_of(static_cast<uint64_t>(rows.count[i]));
    inverse[i] = kInverses.of[rows.count[i]];
    // Of one value nothing is known.
    less_one[i] = n[i] < 2 ? 1 : n[i] - 1;
    inverse_less_one[i] = kInverses.of[std::max<int64_t>(rows.count[i], 2) - 1];
    unit[i] = power_of_two(rows.exponent[i]);
    sign[i] = rows.sums[i][0] < 0 ? -1 : 1;
  }
  alignas(64) EightRows of_total{}, of_squares, of_spread;
  for (int i = 0; i < kRows; ++i) of_total.high[i] = float_of(total[i]);
  set_pairs(squares[0], squares[1], of_squares);
  set_pairs(spread[0], spread[1], of_spread);
  alignas(64) double columns[kValueColumns][kRows];
  const EightRows mean = exact::over<kMultiplies>(of_total, n, inverse);
  const EightRows of_square = exact::over<kMultiplies>(of_squares, n, inverse);
  const EightRows m2 = exact::over<kMultiplies>(of_spread, n, inverse);
  const EightRows variance = exact::over<kMultiplies>(m2, less_one, inverse_less_one);
  exact::roots(of_squares, columns[kL2]);
  exact::roots(of_square, columns[kRms]);
  exact::roots(variance, columns[kStd]);
  for (int i = 0; i < kRows; ++i) {
    // Of zeros, whose order is not that of their signs, the positive one.
    columns[kMin][i] = static_cast<double>(rows.extremes[i][Few::kLeastValue]) + 0.0;
    columns[kMax][i] = -static_cast<double>(rows.extremes[i][Few::kLessLargest]) + 0.0;
    columns[kMaxAbs][i] = -static_cast<double>(rows.extremes[i][Few::kLessLargestMagnitude]) + 0.0;
    columns[kMean][i] = sign[i] * (mean.high[i] * unit[i]);
    columns[kMeanLow][i] = sign[i] * (mean.low[i] * unit[i]);
    columns[kL1][i] = float_of(magnitudes[i]) * unit[i];
    columns[kL2][i] *= unit[i];
    columns[kRms][i] *= unit[i];
    columns[kM2][i] = m2.high[i] * (unit[i] * unit[i]);
    columns[kStd][i] = n[i] < 2 ? not_a_number() : columns[kStd][i] * unit[i];
    columns[kExponent][i] = 0;  // float32 is within float64's squares
  }
  for (int i = 0; i < rows.rows; ++i) {
    double* to = tensors.values + rows.row[i] * kValueColumns;
    for (int column = 0; column < kValueColumns; ++column) to[column] = columns[column][i];
  }
  rows.rows = 0;
}

PYPARAM_TARGET static void squares_few(const Elements* elements, int64_t begin, int64_t end,
                                       double* sums) {
  for (int64_t i = begin; i < end; ++i) {
    const Elements& e = elements[i];
    if (e.few && e.format == Format::kFloat)
      sums[i] = squares_float(reinterpret_cast<const float*>(e.data), e.values);
  }
}

PYPARAM_TARGET static int64_t measure_few(const FewTensors& tensors, int64_t begin, int64_t end,
                                          Guess* guess, FewTotals& totals, int32_t* left) {
  const float normals[FewBounds::kFormats] = {smallest_normal(Format::kFloat),
                                              smallest_normal(Format::kHalf),
                                              smallest_normal(Format::kBFloat16)};
  FewBounds bounds(std::max(guess->exponent, 1));
  FewRows rows = {};
  int64_t leavings = 0;
  int64_t finite = 0;
  FourFloats least = std::numeric_limits<float>::infinity() - FourFloats{};
  Few few;
  Statistics odd;
  // Reads one tensor; whether its sums are exact.
  const auto measured = [&](const auto& from, int64_t n, int format) PYPARAM_TARGET
      __attribute__((always_inline)) {
        read_few(from, n, bounds.exponent, few);
        if (__builtin_expect(few.sums[1] <= std::numeric_limits<double>::max() &&
                                 none_below(few.extremes, bounds.least[format]),
                             true))
          return true;
        return few.sums[1] <= std::numeric_limits<double>::max() &&
               measure_odd(from, n, normals[format], bounds, few, odd);
      };
  for (int64_t i = begin; i < end; ++i) {
    if (!tensors.ahead.reach(i + 1)) return -1;
    const Elements& e = tensors.elements[i];
    if (!e.few) continue;
    bool known = false;
    if (e.format == Format::kFloat) {
      known = measured(StoredFloats{reinterpret_cast<const float*>(e.data)}, e.values, 0);
#if PYPARAM_VECTOR_BYTES > 16
    } else if (e.format == Format::kHalf) {
      known =
          measured(StoredMinis<Half>{reinterpret_cast<const Half::storage*>(e.data)}, e.values, 1);
    } else if (e.format == Format::kBFloat16) {
      known = measured(StoredMinis<BFloat16>{reinterpret_cast<const BFloat16::storage*>(e.data)},
                       e.values, 2);
#endif
    }
    if (__builtin_expect(!known, false)) {
      left[leavings++] = static_cast<int32_t>(i - begin);
      odd = {};
      continue;
    }
    int64_t* counts = tensors.counts + i * kCountColumns;
    counts[kNumel] = e.values;
    counts[CountColumn::kBytes] = e.bytes();
    counts[kZeros] = odd.zeros;
    counts[kNans] = counts[kPosInfs] = counts[kNegInfs] = 0;
    counts[kSubnormals] = odd.subnormals;
    counts[kFinite] = e.values;
    if (odd.zeros + odd.subnormals != 0) {
      totals.found.zeros += odd.zeros;
      totals.found.subnormals += odd.subnormals;
      odd = {};
    }
    finite += e.values;
    FourFloats extremes;
    std::memcpy(&extremes, few.extremes, sizeof(extremes));
    least = extremes < least ? extremes : least;
    rows.append(i, e.values, few, bounds.units);
    if (rows.rows == FewRows::kRows) {
      rows.add_to(totals);
      round_rows(rows, tensors);
    }
  }
  rows.add_to(totals);
  round_rows(rows, tensors);
  totals.found.finite += finite;
  totals.found.min = std::min<double>(totals.found.min, least[Few::kLeastValue]);
  totals.found.max = std::max<double>(totals.found.max, -least[Few::kLessLargest]);
  guess->exponent = bounds.exponent;
  return leavings;
}

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
