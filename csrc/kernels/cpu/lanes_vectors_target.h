// Vectors of values and of the sixteen lanes they are summed in.
// Part of lanes_target.h.

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
  static constexpr int kPerValues = kBytes / static_cast<int>(sizeof(T));
  static constexpr int kPerDoubles = kBytes / 8;
  static constexpr int kValues = kLanes / kPerValues;    // vectors of sixteen T
  static constexpr int kDoubles = kLanes / kPerDoubles;  // vectors of sixteen doubles

  // The next vector of doubles. Intrinsics, since GCC converts a float vector by parts.
  PYPARAM_TARGET static PYPARAM_INLINE Doubles widen(const double* from) {
    Doubles out;
    std::memcpy(&out, from, kBytes);
    return out;
  }
  PYPARAM_TARGET static PYPARAM_INLINE Doubles widen(const float* from) {
#if defined(__x86_64__) && PYPARAM_VECTOR_BYTES == 64
    // All lanes; the plain intrinsic makes GCC warn of its own undefined vector.
    return (Doubles)_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(from));
#elif defined(__x86_64__) && PYPARAM_VECTOR_BYTES == 32
    return (Doubles)_mm256_cvtps_pd(_mm_loadu_ps(from));
#elif defined(__x86_64__)
    return (Doubles)_mm_cvtps_pd(
        _mm_castsi128_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
    typedef float Narrow __attribute__((vector_size(kBytes / 2)));
    Narrow narrow;
    std::memcpy(&narrow, from, sizeof(narrow));
    return __builtin_convertvector(narrow, Doubles);
#endif
  }
  PYPARAM_TARGET static PYPARAM_INLINE Doubles abs(Doubles x) {
    return (Doubles)((DoubleBits)x & std::numeric_limits<int64_t>::max());
  }

  // Of x and the smaller one of magnitudes: that of x, if it is less. NaNs of x are passed over.
  PYPARAM_TARGET static PYPARAM_INLINE Values lesser_magnitude(Values x, Values least) {
#if defined(__x86_64__) && PYPARAM_VECTOR_BYTES == 64
    constexpr int kLesserWithoutSign = 2 | 2 << 2;
    if constexpr (sizeof(T) == 4) {
      return (Values)_mm512_maskz_range_ps(0xffff, (__m512)x, (__m512)least, kLesserWithoutSign);
    } else {
      return (Values)_mm512_maskz_range_pd(0xff, (__m512d)x, (__m512d)least, kLesserWithoutSign);
    }
#else
    const Values magnitude = (Values)((ValueBits)x & kMagnitude);
    return magnitude < least ? magnitude : least;
#endif
  }

  // sum + x * x for x widened from float32, whose square has at most 48 bits: exact, so that fusing
  // it with the addition, where the machine can, changes nothing.
  PYPARAM_TARGET static PYPARAM_INLINE Doubles add_square(Doubles sum, Doubles x) {
#if defined(__x86_64__) && PYPARAM_VECTOR_BYTES == 64
    return (Doubles)_mm512_fmadd_pd((__m512d)x, (__m512d)x, (__m512d)sum);
#elif defined(__x86_64__) && PYPARAM_VECTOR_BYTES == 32
    return (Doubles)_mm256_fmadd_pd((__m256d)x, (__m256d)x, (__m256d)sum);
#else
    return sum + x * x;
#endif
  }
  // x * x - square, rounded once.
  PYPARAM_TARGET static PYPARAM_INLINE Doubles square_less(Doubles x, Doubles square) {
#if defined(__x86_64__) && PYPARAM_VECTOR_BYTES == 64
    return (Doubles)_mm512_fmsub_pd((__m512d)x, (__m512d)x, (__m512d)square);
#elif defined(__x86_64__) && PYPARAM_VECTOR_BYTES == 32
    return (Doubles)_mm256_fmsub_pd((__m256d)x, (__m256d)x, (__m256d)square);
#else
    Doubles out;
    for (int i = 0; i < kPerDoubles; ++i) out[i] = __builtin_fma(x[i], x[i], -square[i]);
    return out;
#endif
  }
};

#if PYPARAM_VECTOR_BYTES > 16
// One vector of float32 read from 16-bit values, and its halves widened further.
using Floats = Vectors<float>::Values;
using Wide = Vectors<float>::Doubles;

#if PYPARAM_VECTOR_BYTES == 64
PYPARAM_TARGET static PYPARAM_INLINE Floats load(const BFloat16::storage* from, BFloat16) {
  const __m256i stored = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return (Floats)_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, stored), 16);
}
PYPARAM_TARGET static PYPARAM_INLINE Floats load(const Half::storage* from, Half) {
  const __m256i stored = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return (Floats)_mm512_maskz_cvtph_ps(0xffff, stored);
}
PYPARAM_TARGET static PYPARAM_INLINE void widen_halves(Floats from, Wide& low, Wide& high) {
  low = (Wide)_mm512_maskz_cvtps_pd(
      0xff, (__m256)__builtin_shufflevector(from, from, 0, 1, 2, 3, 4, 5, 6, 7));
  high = (Wide)_mm512_maskz_cvtps_pd(
      0xff, (__m256)__builtin_shufflevector(from, from, 8, 9, 10, 11, 12, 13, 14, 15));
}
#else
PYPARAM_TARGET static PYPARAM_INLINE Floats load(const BFloat16::storage* from, BFloat16) {
  const __m128i stored = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(stored), 16);
}
PYPARAM_TARGET static PYPARAM_INLINE Floats load(const Half::storage* from, Half) {
  return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
PYPARAM_TARGET static PYPARAM_INLINE void widen_halves(Floats from, Wide& low, Wide& high) {
  low = (Wide)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)from));
  high = (Wide)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)from, 1));
}
#endif
#endif

// Adds sixteen lanes as a binary tree: i and i + 8, then i and i + 4 ...
using Lanes64 = Vectors<float>::Doubles;
constexpr int kLaneVectors = Vectors<float>::kDoubles;

PYPARAM_TARGET static PYPARAM_INLINE double add_lanes(const Lanes64 (&x)[kLaneVectors]) {
#if PYPARAM_VECTOR_BYTES > 16
  typedef double Four __attribute__((vector_size(32)));
  typedef double Two __attribute__((vector_size(16)));
#if PYPARAM_VECTOR_BYTES == 64
  const Lanes64 eight = x[0] + x[1];
  const Four four = (Four)__builtin_shufflevector(eight, eight, 0, 1, 2, 3) +
                    (Four)__builtin_shufflevector(eight, eight, 4, 5, 6, 7);
#else
  const Four four = (x[0] + x[2]) + (x[1] + x[3]);
#endif
  const Two two = (Two)__builtin_shufflevector(four, four, 0, 1) +
                  (Two)__builtin_shufflevector(four, four, 2, 3);
  return two[0] + two[1];
#else
  double lanes[kLanes];
  std::memcpy(lanes, x, sizeof(lanes));
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
#endif
}

// Of a vector's lanes the one that `pick`, which takes two vectors, is left with. In registers: for
// a small tensor this is much of the work.
template <typename T, typename Vector, typename Pick>
PYPARAM_TARGET static PYPARAM_INLINE T picked_lane(const Vector& all, const Pick& pick) {
  typedef T Sixteen __attribute__((vector_size(16)));
#if PYPARAM_VECTOR_BYTES == 64
  typedef T Half __attribute__((vector_size(32)));
  Half half;
  if constexpr (sizeof(T) == 4) {
    half = pick((Half)__builtin_shufflevector(all, all, 0, 1, 2, 3, 4, 5, 6, 7),
                (Half)__builtin_shufflevector(all, all, 8, 9, 10, 11, 12, 13, 14, 15));
  } else {
    half = pick((Half)__builtin_shufflevector(all, all, 0, 1, 2, 3),
                (Half)__builtin_shufflevector(all, all, 4, 5, 6, 7));
  }
#elif PYPARAM_VECTOR_BYTES == 32
  const Vector half = all;
#endif
#if PYPARAM_VECTOR_BYTES > 16
  Sixteen left = pick((Sixteen)_mm256_castsi256_si128((__m256i)half),
                      (Sixteen)_mm256_extracti128_si256((__m256i)half, 1));
#else
  Sixteen left = all;
#endif
  if constexpr (sizeof(T) == 4) {
    left = pick(left, (Sixteen){left[2], left[3], left[0], left[1]});
    return pick(left, (Sixteen){left[1], left[0], left[3], left[2]})[0];
  } else {
    return pick(left, (Sixteen){left[1], left[0]})[0];
  }
}
struct Least {
  template <typename Vector>
  PYPARAM_TARGET PYPARAM_INLINE Vector operator()(Vector a, Vector b) const {
    return b < a ? b : a;
  }
};
struct Largest {
  template <typename Vector>
  PYPARAM_TARGET PYPARAM_INLINE Vector operator()(Vector a, Vector b) const {
    return b > a ? b : a;
  }
};

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
