// Values of a window, apart from smaller ones.
// Part of lanes_target.h.

namespace pyparam::cpu::PYPARAM_NAMESPACE {

// The bits of the least magnitude of the window whose largest values have this exponent, with its
// bias. Subnormals belong to the lowest.
PYPARAM_INLINE uint32_t least_of_window(int exponent) {
  return exponent - kExactSpan <= 1 ? 0 : static_cast<uint32_t>(exponent - kExactSpan) << 23;
}

#if PYPARAM_VECTOR_BYTES == 32
// For each choice of eight lanes their numbers, a byte each, the chosen ones first.
struct ChosenFirst {
  uint64_t lanes[256];
  uint8_t count[256];
  constexpr ChosenFirst() : lanes(), count() {
    for (int chosen = 0; chosen < 256; ++chosen) {
      for (int lane = 0; lane < 8; ++lane) {
        if ((chosen >> lane & 1) != 0)
          lanes[chosen] |= static_cast<uint64_t>(lane) << (8 * count[chosen]++);
      }
    }
  }
};
static constexpr ChosenFirst kChosenFirst;
#endif

// Reads values of which the sums get those from `least` on and zeros for the others, which are
// copied: nothing but zeros is then neither summed nor copied. There is room for sixteen more than
// are read.
template <typename Stored>
struct Above {
  using V = Vectors<float>;
  static constexpr int64_t kStoredBytes = Stored::kStoredBytes;
  Stored from;
  uint32_t least;
  float* others;
  mutable int64_t count = 0;  // of the others

  PYPARAM_TARGET PYPARAM_INLINE float first() const { return from.first(); }
  PYPARAM_TARGET PYPARAM_INLINE const void* at(int64_t i) const { return from.at(i); }
  PYPARAM_TARGET PYPARAM_INLINE void read(int64_t i, Sixteen& out) const {
    from.read(i, out);
    split(out);
  }
  PYPARAM_TARGET PYPARAM_INLINE void read_rest(int64_t i, int n, Sixteen& out) const {
    from.read_rest(i, n, out);
    split(out);
  }

 private:
  PYPARAM_TARGET PYPARAM_INLINE void split(Sixteen& x) const {
#if PYPARAM_VECTOR_BYTES == 64
    const auto v = (__m512)x.values[0];
    const auto bits = (__m512i)((V::ValueBits)x.values[0] & V::kMagnitude);
    const __m512i limit = _mm512_set1_epi32(static_cast<int>(least));
    const __mmask16 above = _mm512_cmpge_epu32_mask(bits, limit);
    const __mmask16 below =
        _mm512_mask_cmplt_epu32_mask(_mm512_test_epi32_mask(bits, bits), bits, limit);
    x.lanes[0] = (Wide)_mm512_maskz_cvtps_pd(
        static_cast<__mmask8>(above),
        (__m256)__builtin_shufflevector(x.values[0], x.values[0], 0, 1, 2, 3, 4, 5, 6, 7));
    x.lanes[1] = (Wide)_mm512_maskz_cvtps_pd(
        static_cast<__mmask8>(above >> 8),
        (__m256)__builtin_shufflevector(x.values[0], x.values[0], 8, 9, 10, 11, 12, 13, 14, 15));
    _mm512_storeu_ps(others + count, _mm512_maskz_compress_ps(below, v));
    count += __builtin_popcount(below);
#elif PYPARAM_VECTOR_BYTES == 32
#pragma GCC unroll 2
    for (int part = 0; part < V::kValues; ++part) {
      const V::ValueBits bits = (V::ValueBits)x.values[part] & V::kMagnitude;
      const V::ValueBits above = bits >= static_cast<int32_t>(least);
      const int below = _mm256_movemask_ps((__m256)(above | (bits == 0))) ^ 0xff;
      widen_halves((Floats)((V::ValueBits)x.values[part] & above), x.lanes[2 * part],
                   x.lanes[2 * part + 1]);
      const __m256i order =
          _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(kChosenFirst.lanes[below])));
      _mm256_storeu_ps(others + count, _mm256_permutevar8x32_ps((__m256)x.values[part], order));
      count += kChosenFirst.count[below];
    }
#else
    float values[kLanes];
    int32_t below[kLanes];
    for (int part = 0; part < V::kValues; ++part) {
      const auto stored = (V::ValueBits)x.values[part];
      const V::ValueBits bits = stored & V::kMagnitude;
      const V::ValueBits above = bits >= static_cast<int32_t>(least);
      const V::ValueBits large = stored & above;
      const V::ValueBits small = ~above & (bits != 0);
      std::memcpy(values + part * V::kPerValues, &large, sizeof(large));
      std::memcpy(below + part * V::kPerValues, &small, sizeof(small));
    }
    for (int part = 0; part < V::kDoubles; ++part)
      x.lanes[part] = V::widen(values + part * V::kPerDoubles);
    std::memcpy(values, x.values, sizeof(values));
    for (int lane = 0; lane < kLanes; ++lane) {
      others[count] = values[lane];
      count -= below[lane];
    }
#endif
  }
};

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
