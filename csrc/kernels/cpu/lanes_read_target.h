// How the values of a block are read: sixteen at a time, from what lies in memory.
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
  static constexpr int64_t kStoredBytes = 4;
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
  static constexpr int64_t kStoredBytes = 2;
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

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
