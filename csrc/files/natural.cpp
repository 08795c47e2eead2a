#include "files/natural.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>

namespace pyparam::files {
namespace {

constexpr size_t kWidth = 20;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

size_t digits_at(std::string_view text, size_t from) {
  size_t end = from;
  while (end < text.size() && is_digit(text[end])) ++end;
  return end - from;
}

// Of two runs of digits, as they compare with zeros before them up to kWidth characters.
int compare_runs(std::string_view a, std::string_view b) {
  const size_t width = std::max({kWidth, a.size(), b.size()});
  const size_t width_a = std::max(kWidth, a.size()), width_b = std::max(kWidth, b.size());
  for (size_t i = 0; i < width; ++i) {
    if (i >= width_a || i >= width_b) return width_a < width_b ? -1 : 1;
    const char x = i < width_a - a.size() ? '0' : a[i - (width_a - a.size())];
    const char y = i < width_b - b.size() ? '0' : b[i - (width_b - b.size())];
    if (x != y) return x < y ? -1 : 1;
  }
  return 0;
}

// How many bytes both begin with.
size_t same_bytes(std::string_view a, std::string_view b) {
  const size_t size = std::min(a.size(), b.size());
  size_t i = 0;
  for (uint64_t x = 0, y = 0; i + sizeof(x) <= size; i += sizeof(x)) {
    std::memcpy(&x, a.data() + i, sizeof(x));
    std::memcpy(&y, b.data() + i, sizeof(y));
    if (x != y) break;
  }
  while (i < size && a[i] == b[i]) ++i;
  return i;
}

}  // namespace

bool natural_before(std::string_view a, std::string_view b) {
  // Names of one model begin alike, and are compared where they part, from the number that they may
  // part in.
  size_t i = same_bytes(a, b);
  while (i > 0 && is_digit(a[i - 1])) --i;
  size_t j = i;
  while (i < a.size() && j < b.size()) {
    const size_t m = digits_at(a, i), n = digits_at(b, j);
    if (m > 0 && n > 0) {
      const int order = compare_runs(a.substr(i, m), b.substr(j, n));
      if (order != 0) return order < 0;
      i += m;
      j += n;
      continue;
    }
    if (a[i] != b[j]) {
      return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]);
    }
    ++i;
    ++j;
  }
  return a.size() - i < b.size() - j;
}

std::vector<size_t> natural_order(const std::vector<std::string_view>& names) {
  std::vector<size_t> order(names.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto before = [&](size_t a, size_t b) { return natural_before(names[a], names[b]); };
  if (!std::is_sorted(order.begin(), order.end(), before)) {
    std::stable_sort(order.begin(), order.end(), before);
  }
  return order;
}

}  // namespace pyparam::files
