// Memory that a loop reads in order, asked for before it is needed.
//
// Measured on a Xeon (Emerald Rapids), two threads, in cycles for 64 bytes from pages of 4 KiB: the
// loop that measures float32 with AVX-512, which takes 11 of them from the second-level cache, and
// one that only adds the bytes up, which takes 12 with lines asked for and 13 without:
//
//     nothing                                                                      25.9
//     lines in order, into both caches, and pages                                  14.8
//     the same, four runs of 4 KiB side by side                                    14.5
//     lines of two, four, eight, sixteen pages in turn, into both   14.4  13.8  13.4  13.5
//
// In turn, the page table is walked while lines of other pages come, and more of the memory's own
// pages are open. Distances make no difference within twice of these. With AVX2 only float32 waits
// for memory; where the arithmetic takes 20 cycles, what asks for lines takes more than it gives.
// On an EPYC (Zen 3), float32 with AVX2, lines of eight pages in turn and lines in order take the
// same, and nothing asked for a fifth more.
#pragma once

#include <cstdint>

#include "kernels/macros.h"

namespace pyparam::cpu {

constexpr int64_t kPage = 4096;
constexpr int64_t kLine = 64;

// The cache line so far from a byte into the second-level cache, and one nearer into the first.
// Inlined whatever the compiler thinks: see table/prefetch.h.
constexpr int64_t kFarLine = 16384;
constexpr int64_t kNearLine = 4096;
PYPARAM_INLINE void ask_lines_ahead(const void* at) {
  __builtin_prefetch(static_cast<const char*>(at) + kFarLine, 0, 2);
  __builtin_prefetch(static_cast<const char*>(at) + kNearLine);
}

// Lines ahead of a loop that reads one line after another up to an end, asked for a turn at a time:
// into the second-level cache one of each of so many pages, and nearer ones into the first. None
// beyond the end. Where they lie is found once a turn: to find it for each line took a quarter of
// the instructions of a loop that has few.
class LinesAhead {
 public:
  static constexpr int64_t kLines = 8;  // of a turn
  static constexpr int64_t kBytes = kLines * kLine;

  class Turn {
   public:
    // Once for each line; `at` is in the one that the loop reads.
    PYPARAM_INLINE void ask(const void* at) {
      __builtin_prefetch(far_, 0, 2);
      far_ += step_;
      ask_near(at);
    }
    // One line only, for loops that hardly wait.
    PYPARAM_INLINE void ask_near(const void* at) const {
      __builtin_prefetch(static_cast<const char*>(at) + near_);
    }

   private:
    friend class LinesAhead;
    const char* far_;
    int64_t step_;
    int64_t near_;
  };

  PYPARAM_INLINE explicit LinesAhead(const void* end) : end_(reinterpret_cast<uintptr_t>(end)) {}
  // Of the lines from `at` on, which lies in the first.
  PYPARAM_INLINE Turn turn(const void* at) const {
    constexpr uintptr_t kSpan = kLines * kPage;  // of the pages
    const auto here = reinterpret_cast<uintptr_t>(at);
    const uintptr_t ahead = here + kSpan;
    const uintptr_t far = ahead / kSpan * kSpan + ahead % kSpan / kBytes * kLine;
    const bool within = far + (kSpan - kPage) < end_;
    Turn turn;
    turn.far_ = reinterpret_cast<const char*>(within ? far : here);
    turn.step_ = within ? kPage : 0;
    turn.near_ = here + kBytes + kNearLine <= end_ ? kNearLine : 0;
    return turn;
  }

 private:
  uintptr_t end_;
};

constexpr int64_t kPagesAhead = 32768;

// Reads a byte of each page of a run of bytes, some pages before the loop that reads all of them.
class PagesAhead {
 public:
  PagesAhead(const void* begin, int64_t bytes)
      : next_(static_cast<const volatile char*>(begin)), end_(next_ + bytes) {}
  // Where the loop is.
  PYPARAM_INLINE void reach(const void* at) {
    const auto* here = static_cast<const volatile char*>(at);
    const auto* last = end_ - here > kPagesAhead ? here + kPagesAhead : end_;
    for (; next_ < last; next_ += kPage) (void)*next_;
  }

 private:
  const volatile char* next_;
  const volatile char* end_;
};

}  // namespace pyparam::cpu
