#include "kernels/spans.h"

#include <array>
#include <utility>

namespace pyparam {
namespace {

constexpr int kDigitBits = 11;
constexpr uintptr_t kDigitMask = (uintptr_t{1} << kDigitBits) - 1;

uintptr_t key_of(const Span& span) { return reinterpret_cast<uintptr_t>(span.begin); }

// By begin, eleven bits at a time from the lowest, over the bits that differ.
void sort(std::vector<Span>& spans) {
  uintptr_t differing = 0;
  for (const Span& span : spans) differing |= key_of(span) ^ key_of(spans.front());
  std::vector<Span> other(spans.size());
  while (differing != 0) {
    const int shift = __builtin_ctzll(differing);
    differing &= ~(kDigitMask << shift);
    std::array<uint32_t, kDigitMask + 1> place{};
    for (const Span& span : spans) ++place[key_of(span) >> shift & kDigitMask];
    uint32_t before = 0;
    for (uint32_t& count : place) before += std::exchange(count, before);
    for (const Span& span : spans) other[place[key_of(span) >> shift & kDigitMask]++] = span;
    spans.swap(other);
  }
}

// Whether each begins where the one before it ends, or later.
bool in_order_and_apart(const std::vector<Span>& spans) {
  for (size_t i = 1; i < spans.size(); ++i) {
    if (spans[i].begin < spans[i - 1].end) return false;
  }
  return true;
}

}  // namespace

Span span_of(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return {};
  const auto* begin = static_cast<const char*>(tensor.const_data_ptr());
  return {begin, begin + reach_of(tensor) * static_cast<int64_t>(tensor.itemsize())};
}

bool any_meet(std::vector<Span>& spans) {
  // As most lists lie.
  if (in_order_and_apart(spans)) return false;
  sort(spans);
  return !in_order_and_apart(spans);
}

}  // namespace pyparam
