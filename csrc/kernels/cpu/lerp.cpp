#include "kernels/cpu/lerp.h"

#include "kernels/lerp.h"

#include <c10/util/TypeCast.h>

#include <type_traits>

#include "kernels/cpu/isa.h"

namespace pyparam::cpu {

namespace {

template <typename T>
using Calculated = std::conditional_t<std::is_same_v<T, double>, double, float>;

// `parts`: values an element has, two of a complex one, whose parts move alike.
template <typename T, int parts>
[[gnu::always_inline]] inline void lerp_all(char* dst, const char* src, int64_t n, double weight) {
  using C = Calculated<T>;
  auto* __restrict__ out = reinterpret_cast<T*>(dst);
  const auto* __restrict__ in = reinterpret_cast<const T*>(src);
  const auto part = static_cast<C>(weight);
  for (int64_t i = 0; i < n * parts; ++i)
    out[i] = static_cast<T>(lerp(static_cast<C>(out[i]), static_cast<C>(in[i]), part));
}

template <typename T, int parts>
void lerp_plain(char* dst, const char* src, int64_t n, double weight) {
  lerp_all<T, parts>(dst, src, n, weight);
}

#if defined(__x86_64__)
template <typename T, int parts>
PYPARAM_TARGET_AVX2 void lerp_avx2(char* dst, const char* src, int64_t n, double weight) {
  lerp_all<T, parts>(dst, src, n, weight);
}
#endif

template <typename T, int parts = 1>
Lerp best() {
#if defined(__x86_64__)
  if (best_isa() != Isa::kBaseline) return &lerp_avx2<T, parts>;
#endif
  return &lerp_plain<T, parts>;
}

}  // namespace

Lerp lerp_for(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::ScalarType::Float:
      return best<float>();
    case c10::ScalarType::Double:
      return best<double>();
    case c10::ScalarType::Half:
      return best<c10::Half>();
    case c10::ScalarType::BFloat16:
      return best<c10::BFloat16>();
    case c10::ScalarType::ComplexFloat:
      return best<float, 2>();
    case c10::ScalarType::ComplexDouble:
      return best<double, 2>();
    default:
      return nullptr;
  }
}

}  // namespace pyparam::cpu
