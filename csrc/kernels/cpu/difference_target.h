// The loops of difference.h for one target. difference.cpp includes this file once for each, with
// PYPARAM_NAMESPACE, PYPARAM_TARGET (the function attribute) and PYPARAM_VECTOR_BYTES defined, so
// there is no include guard.

namespace pyparam::cpu::PYPARAM_NAMESPACE {

constexpr int kBytes = PYPARAM_VECTOR_BYTES;
constexpr int kSumLanes = 8;
constexpr int kPerVector = kBytes / 8;
constexpr int kVectors = kSumLanes / kPerVector;

typedef double Doubles __attribute__((vector_size(kBytes)));
typedef int64_t DoubleBits __attribute__((vector_size(kBytes)));

template <typename T>
PYPARAM_TARGET static PYPARAM_INLINE Doubles load(const T* from) {
  typedef T Narrow __attribute__((vector_size(kPerVector * sizeof(T))));
  Narrow narrow;
  std::memcpy(&narrow, from, sizeof(narrow));
  return __builtin_convertvector(narrow, Doubles);
}

PYPARAM_TARGET static inline double sum_of(const Doubles* vectors) {
  double lanes[kSumLanes];
  std::memcpy(lanes, vectors, sizeof(lanes));
  for (int width = kSumLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

PYPARAM_TARGET static inline double max_of(const Doubles* vectors) {
  double lanes[kSumLanes];
  std::memcpy(lanes, vectors, sizeof(lanes));
  for (int i = 1; i < kSumLanes; ++i) lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
  return lanes[0];
}

struct DifferenceLanes {
  Doubles max_abs[kVectors], sum_abs[kVectors], squares[kVectors];
  Doubles squares_a[kVectors], squares_b[kVectors], product[kVectors];

  PYPARAM_TARGET PYPARAM_INLINE DifferenceLanes() {
    for (int v = 0; v < kVectors; ++v) {
      max_abs[v] = sum_abs[v] = squares[v] = squares_a[v] = squares_b[v] = product[v] = Doubles{};
    }
  }

  // Takes in eight pairs; their distances too, unless those are to be calculated (null).
  template <typename T>
  PYPARAM_TARGET PYPARAM_INLINE void take(const T* a, const T* b, const double* distance) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Doubles x = load(a + v * kPerVector);
      const Doubles y = load(b + v * kPerVector);
      Doubles d;
      if (distance != nullptr) {
        d = load(distance + v * kPerVector);
      } else {
        d = (Doubles)((DoubleBits)(x - y) & std::numeric_limits<int64_t>::max());
      }
      max_abs[v] = d > max_abs[v] ? d : max_abs[v];
      sum_abs[v] += d;
      squares[v] += d * d;
      squares_a[v] += x * x;
      squares_b[v] += y * y;
      product[v] += x * y;
    }
  }
};

template <typename T, bool kGiven>
PYPARAM_TARGET PYPARAM_INLINE BlockDifference block_difference(const T* a, const T* b,
                                                               const double* distance, int64_t n) {
  DifferenceLanes lanes;
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes)
    lanes.take(a + i, b + i, kGiven ? distance + i : nullptr);
  if (i < n) {
    // The rest, filled up with zeros, which add nothing.
    T rest_a[kSumLanes] = {};
    T rest_b[kSumLanes] = {};
    double rest_distance[kSumLanes] = {};
    for (int lane = 0; i < n; ++i, ++lane) {
      rest_a[lane] = a[i];
      rest_b[lane] = b[i];
      if (kGiven) rest_distance[lane] = distance[i];
    }
    lanes.take(rest_a, rest_b, kGiven ? rest_distance : nullptr);
  }
  return {max_of(lanes.max_abs),   sum_of(lanes.sum_abs),   sum_of(lanes.squares),
          sum_of(lanes.squares_a), sum_of(lanes.squares_b), sum_of(lanes.product)};
}

PYPARAM_TARGET static BlockDifference floats(const float* a, const float* b, int64_t n) {
  return block_difference<float, false>(a, b, nullptr, n);
}
PYPARAM_TARGET static BlockDifference doubles(const double* a, const double* b, int64_t n) {
  return block_difference<double, false>(a, b, nullptr, n);
}
PYPARAM_TARGET static BlockDifference given(const double* a, const double* b,
                                            const double* distance, int64_t n) {
  return block_difference<double, true>(a, b, distance, n);
}

template <typename T>
PYPARAM_TARGET PYPARAM_INLINE double block_squares(const T* a, int64_t n) {
  Doubles sums[kVectors];
  for (int v = 0; v < kVectors; ++v) sums[v] = Doubles{};
  const auto take = [&](const T* from) PYPARAM_TARGET __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Doubles x = load(from + v * kPerVector);
      sums[v] += x * x;
    }
  };
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes) take(a + i);
  if (i < n) {
    T rest[kSumLanes] = {};
    for (int lane = 0; i < n; ++i, ++lane) rest[lane] = a[i];
    take(rest);
  }
  return sum_of(sums);
}

PYPARAM_TARGET static double squares_float(const float* a, int64_t n) {
  return block_squares(a, n);
}
PYPARAM_TARGET static double squares_double(const double* a, int64_t n) {
  return block_squares(a, n);
}

template <typename Word>
PYPARAM_TARGET static inline int64_t count_words(const void* a, const void* b, int64_t n) {
  const auto* x = static_cast<const Word*>(a);
  const auto* y = static_cast<const Word*>(b);
  Word count =
      0;  // as wide as the words, so that a vector holds as many; a short run cannot overflow it
  int64_t total = 0;
  for (int64_t begin = 0; begin < n;) {
    const int64_t run = std::min<int64_t>(n - begin, sizeof(Word) == 1 ? 128 : kBlock);
    count = 0;
    for (int64_t i = begin; i < begin + run; ++i) count = static_cast<Word>(count + (x[i] != y[i]));
    total += count;
    begin += run;
  }
  return total;
}

PYPARAM_TARGET static int64_t count_differing(const void* a, const void* b, int64_t n,
                                              int64_t width) {
  switch (width) {
    case 1:
      return count_words<uint8_t>(a, b, n);
    case 2:
      return count_words<uint16_t>(a, b, n);
    case 4:
      return count_words<uint32_t>(a, b, n);
    case 8:
      return count_words<uint64_t>(a, b, n);
    default:
      break;
  }
  const auto* x = static_cast<const uint64_t*>(a);
  const auto* y = static_cast<const uint64_t*>(b);
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    count += ((x[2 * i] ^ y[2 * i]) | (x[2 * i + 1] ^ y[2 * i + 1])) != 0;
  }
  return count;
}

template <typename T>
PYPARAM_TARGET static inline int64_t count_unequal(const T* a, const T* b, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += (a[i] != b[i]) & ((a[i] == a[i]) | (b[i] == b[i]));
  return count;
}
PYPARAM_TARGET static int64_t count_unequal_floats(const float* a, const float* b, int64_t n) {
  return count_unequal(a, b, n);
}
PYPARAM_TARGET static int64_t count_unequal_doubles(const double* a, const double* b, int64_t n) {
  return count_unequal(a, b, n);
}

PYPARAM_TARGET static void to_doubles(const float* from, int64_t n, double* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
}

static constexpr DifferenceKernels kernels = {
    floats,
    doubles,
    given,
    squares_float,
    squares_double,
    count_differing,
    count_unequal_floats,
    count_unequal_doubles,
    to_doubles,
};

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
