// Values as they are stored, widened to float32 or float64.
// Part of lanes_target.h.

namespace pyparam::cpu::PYPARAM_NAMESPACE {

template <typename Stored, typename To>
PYPARAM_TARGET static inline void convert(const void* from, int64_t n, void* to) {
  for (int64_t i = 0; i < n; ++i) {
    static_cast<To*>(to)[i] = static_cast<To>(static_cast<const Stored*>(from)[i]);
  }
}
template <typename Mini>
PYPARAM_TARGET static inline void expand(const void* from, int64_t n, void* to) {
  const auto* bits = static_cast<const typename Mini::storage*>(from);
  if (n == kBlock) {
    for (int64_t i = 0; i < n * static_cast<int64_t>(sizeof(bits[0])); i += 64)
      __builtin_prefetch(static_cast<const char*>(from) + 2 * kBlock + i);
  }
  int64_t i = 0;
#if PYPARAM_VECTOR_BYTES > 16
  if constexpr (std::is_same_v<Mini, Half>) {  // the machine has an instruction for it
    for (; i + kBytes / 4 <= n; i += kBytes / 4) {
      const Floats v = load(bits + i, Mini{});
      std::memcpy(static_cast<float*>(to) + i, &v, sizeof(v));
    }
  }
#endif
  for (; i < n; ++i) static_cast<float*>(to)[i] = Mini::value(bits[i]);
}

PYPARAM_TARGET static void widen(Format format, const void* from, int64_t n, void* to) {
  switch (format) {
    case Format::kFloat:
      return convert<float, float>(from, n, to);
    case Format::kDouble:
      return convert<double, double>(from, n, to);
    case Format::kHalf:
      return expand<Half>(from, n, to);
    case Format::kBFloat16:
      return expand<BFloat16>(from, n, to);
    case Format::kFloat8e5m2:
      return expand<Float8e5m2>(from, n, to);
    case Format::kFloat8e4m3fn:
      return expand<Float8e4m3fn>(from, n, to);
    case Format::kFloat8e5m2fnuz:
      return expand<Float8e5m2fnuz>(from, n, to);
    case Format::kFloat8e4m3fnuz:
      return expand<Float8e4m3fnuz>(from, n, to);
    case Format::kFloat8e8m0fnu:
      return expand<Float8e8m0fnu>(from, n, to);
    case Format::kBool:
      for (int64_t i = 0; i < n; ++i) {
        static_cast<float*>(to)[i] = static_cast<const uint8_t*>(from)[i] != 0 ? 1.0f : 0.0f;
      }
      return;
    case Format::kUInt8:
      return convert<uint8_t, float>(from, n, to);
    case Format::kInt8:
      return convert<int8_t, float>(from, n, to);
    case Format::kInt16:
      return convert<int16_t, float>(from, n, to);
    case Format::kUInt16:
      return convert<uint16_t, float>(from, n, to);
    case Format::kInt32:
      return convert<int32_t, double>(from, n, to);
    case Format::kUInt32:
      return convert<uint32_t, double>(from, n, to);
    case Format::kInt64:
      return convert<int64_t, double>(from, n, to);
    case Format::kUInt64:
      return convert<uint64_t, double>(from, n, to);
  }
}

PYPARAM_TARGET static void narrow(const double* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(from[i]);
}

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
