#include "kernels/cpu/convert.h"

#include <c10/util/TypeCast.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels/cpu/isa.h"
#include "kernels/cpu/memory.h"

namespace pyparam::cpu {
namespace {

#if defined(__x86_64__) && defined(__GNUC__)
#define PYPARAM_HAS_AVX2 1
#else
#define PYPARAM_HAS_AVX2 0
#endif

template <typename T>
T load(const char* from) {
  T value;
  if constexpr (std::is_same_v<T, bool>) {
    value = *reinterpret_cast<const unsigned char*>(from) !=
            0;  // a byte that is neither 0 nor 1 reads as true
  } else {
    std::memcpy(&value, from, sizeof(T));
  }
  return value;
}

template <typename T>
void store(char* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

template <typename To, typename From>
[[gnu::always_inline]] inline void convert_dense(char* dst, const char* src, int64_t n) {
  auto* __restrict__ out = reinterpret_cast<To*>(dst);
  const auto* __restrict__ in = reinterpret_cast<const From*>(src);
  for (int64_t i = 0; i < n; ++i) out[i] = c10::convert<To>(in[i]);
}

template <typename To, typename From>
[[gnu::always_inline]] inline void convert_strided(char* dst, int64_t dst_step, const char* src,
                                                   int64_t src_step, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    store<To>(dst + i * dst_step, c10::convert<To>(load<From>(src + i * src_step)));
}

template <typename To, typename From>
void convert_plain(char* dst, int64_t dst_step, const char* src, int64_t src_step, int64_t n) {
  convert_strided<To, From>(dst, dst_step, src, src_step, n);
}

// The four floating dtypes that models live in: dense runs get a vector loop, the widest the
// machine has. All widths compute the same formula without contraction, so the result does not
// depend on the machine.
template <typename To, typename From>
void convert_wide(char* dst, int64_t dst_step, const char* src, int64_t src_step, int64_t n) {
  if (dst_step == sizeof(To) && src_step == sizeof(From)) {
    convert_dense<To, From>(dst, src, n);
  } else {
    convert_strided<To, From>(dst, dst_step, src, src_step, n);
  }
}

#if PYPARAM_HAS_AVX2
// Reads and stores past the caches alternate line by line, so that neither waits for the other. The
// target is aligned as its dtype is.
template <typename To, typename From>
[[gnu::target("avx2")]] void stream_avx2(char* dst, int64_t, const char* src, int64_t, int64_t n) {
  constexpr int64_t kLine = 64 / sizeof(To);
  const int64_t to_line = static_cast<int64_t>(-reinterpret_cast<uintptr_t>(dst) % 64) /
                          static_cast<int64_t>(sizeof(To));
  const int64_t head = std::min(n, to_line);
  convert_dense<To, From>(dst, src, head);
  int64_t i = head;
  for (; i + kLine <= n; i += kLine) {
    alignas(64) char line[64];
    convert_dense<To, From>(line, src + i * static_cast<int64_t>(sizeof(From)), kLine);
    auto* out = reinterpret_cast<__m256i*>(dst + i * static_cast<int64_t>(sizeof(To)));
    _mm256_stream_si256(out, _mm256_load_si256(reinterpret_cast<const __m256i*>(line)));
    _mm256_stream_si256(out + 1, _mm256_load_si256(reinterpret_cast<const __m256i*>(line + 32)));
  }
  convert_dense<To, From>(dst + i * static_cast<int64_t>(sizeof(To)),
                          src + i * static_cast<int64_t>(sizeof(From)), n - i);
  _mm_sfence();
}

template <typename To, typename From>
[[gnu::target("avx2")]] void convert_avx2(char* dst, int64_t dst_step, const char* src,
                                          int64_t src_step, int64_t n) {
  if (dst_step == sizeof(To) && src_step == sizeof(From)) {
    convert_dense<To, From>(dst, src, n);
  } else {
    convert_strided<To, From>(dst, dst_step, src, src_step, n);
  }
}
#endif

// Elements are moved as opaque words of their size.
struct Word16 {
  uint64_t low, high;
};

template <typename T>
void copy_words(char* dst, int64_t dst_step, const char* src, int64_t src_step, int64_t n) {
  if (dst_step == sizeof(T) && src_step == sizeof(T)) {
    std::memcpy(dst, src, static_cast<size_t>(n) * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < n; ++i) std::memcpy(dst + i * dst_step, src + i * src_step, sizeof(T));
}

template <typename T>
constexpr bool is_wide = std::is_same_v<T, float> || std::is_same_v<T, double> ||
                         std::is_same_v<T, c10::Half> || std::is_same_v<T, c10::BFloat16>;

template <typename To, typename From>
Run conversion() {
  if constexpr (is_wide<To> && is_wide<From>) {
#if PYPARAM_HAS_AVX2
    if (best_isa() != Isa::kBaseline) return &convert_avx2<To, From>;
#endif
    return &convert_wide<To, From>;
  } else {
    return &convert_plain<To, From>;
  }
}

#define PYPARAM_FOR_DTYPES(_) \
  AT_FORALL_SCALAR_TYPES_WITH_COMPLEX(_) _(uint16_t, UInt16) _(uint32_t, UInt32) _(uint64_t, UInt64)

template <typename To>
Run conversion_to(c10::ScalarType from) {
  switch (from) {
#define PYPARAM_CASE(type, name) \
  case c10::ScalarType::name:    \
    return conversion<To, type>();
    PYPARAM_FOR_DTYPES(PYPARAM_CASE)
#undef PYPARAM_CASE
    default:
      return nullptr;
  }
}

// Converted elements wait here, in the first-level cache, for streaming.
constexpr int64_t kStageBytes = 8192;

}  // namespace

void stream_run(Run run, char* dst, int64_t dst_size, const char* src, int64_t src_step,
                int64_t n) {
  alignas(64) char stage[kStageBytes];
  const int64_t most = kStageBytes / dst_size;
  for (int64_t done = 0; done < n; done += most) {
    const int64_t now = std::min(most, n - done);
    run(stage, dst_size, src + done * src_step, src_step, now);
    stream_copy(dst + done * dst_size, stage, static_cast<size_t>(now * dst_size));
  }
}

Run word_copy(int64_t size) {
  switch (size) {
    case 1:
      return &copy_words<uint8_t>;
    case 2:
      return &copy_words<uint16_t>;
    case 4:
      return &copy_words<uint32_t>;
    case 8:
      return &copy_words<uint64_t>;
    case 16:
      return &copy_words<Word16>;
    default:
      return nullptr;
  }
}

namespace {

template <typename To>
Run streaming_to(c10::ScalarType from) {
#if PYPARAM_HAS_AVX2
  if (best_isa() == Isa::kBaseline) return nullptr;
  switch (from) {
    case c10::ScalarType::Float:
      return &stream_avx2<To, float>;
    case c10::ScalarType::Double:
      return &stream_avx2<To, double>;
    case c10::ScalarType::Half:
      return &stream_avx2<To, c10::Half>;
    case c10::ScalarType::BFloat16:
      return &stream_avx2<To, c10::BFloat16>;
    default:
      return nullptr;
  }
#else
  (void)from;
  return nullptr;
#endif
}

}  // namespace

Run stream_for(c10::ScalarType to, c10::ScalarType from) {
  if (to == from) return nullptr;
  switch (to) {
    case c10::ScalarType::Float:
      return streaming_to<float>(from);
    case c10::ScalarType::Double:
      return streaming_to<double>(from);
    case c10::ScalarType::Half:
      return streaming_to<c10::Half>(from);
    case c10::ScalarType::BFloat16:
      return streaming_to<c10::BFloat16>(from);
    default:
      return nullptr;
  }
}

Run run_for(c10::ScalarType to, c10::ScalarType from) {
  if (to == from) return word_copy(static_cast<int64_t>(c10::elementSize(to)));
  switch (to) {
#define PYPARAM_CASE(type, name) \
  case c10::ScalarType::name:    \
    return conversion_to<type>(from);
    PYPARAM_FOR_DTYPES(PYPARAM_CASE)
#undef PYPARAM_CASE
    default:
      return nullptr;
  }
}

}  // namespace pyparam::cpu
