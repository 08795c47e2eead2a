#include "kernels/cpu/hash.h"

#include "kernels/cpu/ahead.h"
#include "kernels/cpu/isa.h"

namespace pyparam::cpu {
namespace {

using hash::Sums;

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are read as little-endian");

constexpr int kLanes = 16;

// In lane j, `running` sums the lane's `plain` after each of T steps, so that it counts the word of
// step t T - t times; `placed` follows from it without a multiplication a word. The last step may
// be partial: its missing words are masked out.
PYPARAM_INLINE Sums sum_words(const char* bytes, int64_t nbytes, uint64_t first) {
  constexpr int64_t kStepBytes = kLanes * 8;
  constexpr int64_t kStepsOfPages = kPage / kStepBytes;
  uint64_t key[kLanes];
  uint64_t plain[kLanes] = {};
  uint64_t running[kLanes] = {};
  for (int j = 0; j < kLanes; ++j) key[j] = (first + 1 + static_cast<uint64_t>(j)) * hash::kStep;
  const int64_t steps = nbytes / kStepBytes;
  PagesAhead pages(bytes, nbytes);
  for (int64_t t = 0; t < steps; ++t) {
    if (t % kStepsOfPages == 0) pages.reach(bytes + t * kStepBytes);
    ask_lines_ahead(bytes + t * kStepBytes);
    ask_lines_ahead(bytes + t * kStepBytes + 64);
    for (int j = 0; j < kLanes; ++j) {
      uint64_t word;
      std::memcpy(&word, bytes + t * kStepBytes + j * 8, 8);
      plain[j] += hash::scramble(word, key[j]);
      running[j] += plain[j];
      key[j] += kLanes * hash::kStep;
    }
  }
  auto count = static_cast<uint64_t>(steps);
  const int64_t rest = nbytes - steps * kStepBytes;
  if (rest > 0) {
    uint64_t words[kLanes] = {};
    // Word by word: calling memcpy for a few bytes costs more than the few words do.
    const char* from = bytes + steps * kStepBytes;
    int64_t word = 0;
    for (; (word + 1) * 8 <= rest; ++word) std::memcpy(&words[word], from + word * 8, 8);
    if (word * 8 < rest) words[word] = hash::partial_word(from + word * 8, rest - word * 8);
    const auto present = static_cast<uint64_t>((rest + 7) / 8);
    for (int j = 0; j < kLanes; ++j) {
      const uint64_t mask = static_cast<uint64_t>(j) < present ? ~uint64_t{0} : 0;
      plain[j] += hash::scramble(words[j], key[j]) & mask;
      running[j] += plain[j];
    }
    ++count;
  }
  Sums sums;
  for (int j = 0; j < kLanes; ++j) {
    const uint64_t position = first + 1 + static_cast<uint64_t>(j);
    sums.plain += plain[j];
    sums.placed += position * plain[j] + kLanes * (count * plain[j] - running[j]);
  }
  return sums;
}

Sums sum_words_baseline(const char* bytes, int64_t nbytes, uint64_t first) {
  return sum_words(bytes, nbytes, first);
}
#if defined(__x86_64__)
PYPARAM_TARGET_AVX2 Sums sum_words_avx2(const char* bytes, int64_t nbytes, uint64_t first) {
  return sum_words(bytes, nbytes, first);
}
PYPARAM_TARGET_AVX512 Sums sum_words_avx512(const char* bytes, int64_t nbytes, uint64_t first) {
  return sum_words(bytes, nbytes, first);
}
#endif

}  // namespace

Sums hash_bytes(const void* bytes, int64_t nbytes, uint64_t first) {
  const char* data = static_cast<const char*>(bytes);
#if defined(__x86_64__)
  return for_best_isa(sum_words_baseline, sum_words_avx2, sum_words_avx512)(data, nbytes, first);
#else
  return sum_words_baseline(data, nbytes, first);
#endif
}

}  // namespace pyparam::cpu
