#include "kernels/cpu/memory.h"

#include <ATen/EmptyTensor.h>

#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace pyparam::cpu {
namespace {

constexpr uintptr_t huge_page = uintptr_t{2} << 20;

// Advice only: where the system has no huge pages or will not give them, nothing changes.
void advise_huge(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const auto begin = (reinterpret_cast<uintptr_t>(data) + huge_page - 1) & ~(huge_page - 1);
  const auto end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(huge_page - 1);
  if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace

at::Tensor fresh_vector(int64_t numel, at::ScalarType dtype) {
  at::Tensor vector = at::detail::empty_cpu({numel}, dtype);
  const size_t bytes = vector.storage().nbytes();
  if (bytes >= 4 * huge_page) advise_huge(vector.mutable_data_ptr(), bytes);
  return vector;
}

void stream_copy(void* dst, const void* src, size_t bytes) {
#if defined(__x86_64__)
  auto* to = static_cast<char*>(dst);
  const auto* from = static_cast<const char*>(src);
  // Whole cache lines of the destination are streamed; what is left at both ends is copied.
  const size_t head = static_cast<size_t>(-reinterpret_cast<intptr_t>(to) & 63);
  if (bytes < 4096) {
    std::memcpy(to, from, bytes);
    return;
  }
  std::memcpy(to, from, head);
  to += head;
  from += head;
  bytes -= head;
  for (; bytes >= 64; bytes -= 64, to += 64, from += 64) {
    const auto* in = reinterpret_cast<const __m128i*>(from);
    auto* out = reinterpret_cast<__m128i*>(to);
    const __m128i a = _mm_loadu_si128(in);
    const __m128i b = _mm_loadu_si128(in + 1);
    const __m128i c = _mm_loadu_si128(in + 2);
    const __m128i d = _mm_loadu_si128(in + 3);
    _mm_stream_si128(out, a);
    _mm_stream_si128(out + 1, b);
    _mm_stream_si128(out + 2, c);
    _mm_stream_si128(out + 3, d);
  }
  std::memcpy(to, from, bytes);
  _mm_sfence();
#else
  std::memcpy(dst, src, bytes);
#endif
}

}  // namespace pyparam::cpu
