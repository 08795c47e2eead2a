#include "kernels/cpu/pages.h"

#include <algorithm>

#if defined(__linux__)
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace pyparam::cpu {

#if defined(__linux__)

namespace {

// /proc/self/pagemap has one such word a page; see the kernel's
// Documentation/admin-guide/mm/pagemap.rst.
constexpr uint64_t kPresent = uint64_t{1} << 63;
constexpr uint64_t kSwapped = uint64_t{1} << 62;
constexpr uint64_t kOfFile = uint64_t{1}
                             << 61;  // or of shared memory, which outlives being dropped too

constexpr uint64_t kPagesAtOnce = 512;

}  // namespace

PageReleaser::PageReleaser(bool enabled) {
  if (enabled) pagemap_ = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
}

PageReleaser::~PageReleaser() {
  if (pagemap_ >= 0) close(pagemap_);
}

void PageReleaser::release(const void* begin, int64_t bytes) const {
  if (!enabled() || bytes <= 0) return;
  static const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uint64_t last = (address + static_cast<uint64_t>(bytes)) / page;
  for (uint64_t first = address / page; first < last;) {
    uint64_t words[kPagesAtOnce];
    const uint64_t count = std::min(kPagesAtOnce, last - first);
    const auto size = static_cast<ssize_t>(count * sizeof(uint64_t));
    if (pread(pagemap_, words, static_cast<size_t>(size),
              static_cast<off_t>(first * sizeof(uint64_t))) != size) {
      return;
    }
    const auto is_file = [](uint64_t word) {
      return (word & kSwapped) == 0 && ((word & kPresent) == 0 || (word & kOfFile) != 0);
    };
    if (std::all_of(words, words + count, is_file)) {
      madvise(reinterpret_cast<void*>(first * page), count * page, MADV_DONTNEED);
    }
    first += count;
  }
}

#else

PageReleaser::PageReleaser(bool) {}
PageReleaser::~PageReleaser() = default;
void PageReleaser::release(const void*, int64_t) const {}

#endif

void PageReleaser::release_read(const at::Tensor& tensor, int64_t begin, int64_t length) const {
  if (!enabled() || length == 0) return;
  const char* data = static_cast<const char*>(tensor.const_data_ptr());
  if (tensor.is_contiguous()) {
    release(data + begin, length);
    return;
  }
  const auto item = static_cast<int64_t>(tensor.itemsize());
  if (begin + length < tensor.numel() * item) return;
  int64_t span = 1;
  for (int64_t d = 0; d < tensor.dim(); ++d) span += (tensor.size(d) - 1) * tensor.stride(d);
  release(data, span * item);
}

}  // namespace pyparam::cpu
