#include "kernels/spans.h"

#include <algorithm>
#include <array>
#include <cstring>
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

// The lists that this thread asked about last. Training asks about the same two again and again,
// the parameters and their gradients, and comparing with what was asked before takes a fraction of
// sorting. The answer is one of the spans alone, so it holds wherever they are equal.
class Asked {
 public:
  // Whether some of the spans met, where that is known.
  const bool* find(const std::vector<Span>& spans) const {
    for (const List& list : lists_) {
      if (list.spans.size() == spans.size() &&
          std::memcmp(list.spans.data(), spans.data(), spans.size() * sizeof(Span)) == 0)
        return &list.met;
    }
    return nullptr;
  }
  // Takes the place of the older list.
  void keep(std::vector<Span> spans, bool met) {
    lists_[next_] = {std::move(spans), met};
    next_ = (next_ + 1) % lists_.size();
  }

  static constexpr size_t kFew = 512;  // are sorted as quickly
  static constexpr size_t kMost = size_t{1} << 17;

 private:
  struct List {
    std::vector<Span> spans;
    bool met = false;
  };
  std::array<List, 2> lists_;
  size_t next_ = 0;
};

}  // namespace

Span span_of(const at::Tensor& tensor) {
  if (tensor.numel() == 0) return {};
  const auto* begin = static_cast<const char*>(tensor.const_data_ptr());
  return {begin, begin + reach_of(tensor) * static_cast<int64_t>(tensor.itemsize())};
}

bool any_meet(std::vector<Span>& spans) {
  spans.erase(
      std::remove_if(spans.begin(), spans.end(), [](const Span& span) { return span.empty(); }),
      spans.end());
  // As most lists lie.
  if (in_order_and_apart(spans)) return false;
  static thread_local Asked asked;
  const bool remembers = spans.size() > Asked::kFew && spans.size() <= Asked::kMost;
  if (remembers) {
    if (const bool* met = asked.find(spans)) return *met;
  }
  std::vector<Span> given;
  if (remembers) given = spans;
  sort(spans);
  const bool met = !in_order_and_apart(spans);
  if (remembers) asked.keep(std::move(given), met);
  return met;
}

}  // namespace pyparam
