// Memory that a loop reads in order, asked for before it is needed.
//
// Measured on a Xeon (Emerald Rapids), one thread, with the fingerprint's loop, whose arithmetic
// takes 8.6 cycles for 64 bytes with AVX-512 and 18 with AVX2; one that only adds the bytes up
// takes 15.0 from pages of 4 KiB and 11.3 from huge ones:
//
//                                      AVX-512, 4 KiB pages    huge    AVX2, 4 KiB pages
//     nothing                                          24.7    22.6
//     lines, into either cache                         20.4    14.8                 23.1
//     lines, into both                                 18.5    12.4                 25.0
//     lines, into both, and pages                      13.5    12.9                 20.0
//
// Distances make no difference within twice of these. Where a page's address is not known yet, each
// of its lines that is asked for waits to find it. A prefetch of one line finds it too, but late.
#pragma once

#include <cstdint>

#include "kernels/macros.h"

namespace pyparam::cpu {

constexpr int64_t kPagesAhead = 32768;
constexpr int64_t kPage = 4096;

// The cache line so far from a byte into the second-level cache, and one nearer into the first.
// Inlined whatever the compiler thinks: see table/prefetch.h.
constexpr int64_t kFarLine = 16384;
constexpr int64_t kNearLine = 4096;
PYPARAM_INLINE void ask_lines_ahead(const void* at, int64_t far = kFarLine,
                                    int64_t near = kNearLine) {
  __builtin_prefetch(static_cast<const char*>(at) + far, 0, 2);
  __builtin_prefetch(static_cast<const char*>(at) + near);
}

// Asks for the addresses of so many bytes' pages, which need not be there.
PYPARAM_INLINE void ask_pages_ahead(const void* at, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += kPage)
    __builtin_prefetch(static_cast<const char*>(at) + kPagesAhead + i);
}

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
