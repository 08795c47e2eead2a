// A quick answer to whether tensors may share memory, for verbs that only then have to look
// closely.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/COW.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

namespace pyparam {

// Takes tensors in and says at last whether no byte can be in two of them. "Not apart" is a guess
// to be looked into (table/ties.h): bounding intervals met, or a tensor's memory has no address to
// compare. Tensors without memory are apart from all.
class ApartCheck {
 public:
  void reserve(size_t tensors) { spans_.reserve(tensors); }

  void append(const at::Tensor& tensor) {
    if (!known_) return;
    if (tensor.layout() != at::kStrided || !tensor.has_storage()) return;
    if (tensor.numel() == 0) return;
    const c10::StorageImpl& storage =
        *tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
    // Lazy clones have one address and two memories; what another device calls an address may not
    // be one. Neither occurs in the lists that this check is to be quick for.
    const at::DataPtr& data = storage.data_ptr();
    if (!tensor.is_cpu() && !tensor.is_cuda()) known_ = false;
    if (tensor.is_cpu() && c10::impl::cow::is_cow_data_ptr(data)) known_ = false;
    if (data.get() == nullptr) return;
    const auto unit = static_cast<uint64_t>(tensor.itemsize());
    const uint64_t begin = reinterpret_cast<uintptr_t>(data.get()) +
                           static_cast<uint64_t>(tensor.storage_offset()) * unit;
    uint64_t elements = static_cast<uint64_t>(tensor.numel());
    if (!tensor.is_contiguous()) {
      elements = 1;
      for (int64_t d = 0; d < tensor.dim(); ++d)
        elements +=
            static_cast<uint64_t>(tensor.size(d) - 1) * static_cast<uint64_t>(tensor.stride(d));
    }
    in_order_ &= spans_.empty() || begin >= spans_.back().end;
    spans_.push_back({begin, begin + elements * unit});
  }

  bool apart() {
    if (!known_) return false;
    if (in_order_) return true;
    sort();
    for (size_t i = 1; i < spans_.size(); ++i) {
      if (spans_[i].begin < spans_[i - 1].end) return false;
    }
    return true;
  }

 private:
  struct Span {
    uint64_t begin;
    uint64_t end;
  };

  // By begin, eleven bits at a time from the lowest, over the bits that differ.
  void sort() {
    uint64_t differing = 0;
    for (const Span& span : spans_) differing |= span.begin ^ spans_.front().begin;
    std::vector<Span> other(spans_.size());
    while (differing != 0) {
      const int shift = __builtin_ctzll(differing);
      differing &= ~(kDigitMask << shift);
      std::array<uint32_t, kDigitMask + 1> place{};
      for (const Span& span : spans_) ++place[span.begin >> shift & kDigitMask];
      uint32_t before = 0;
      for (uint32_t& count : place) before += std::exchange(count, before);
      for (const Span& span : spans_) other[place[span.begin >> shift & kDigitMask]++] = span;
      spans_.swap(other);
    }
  }

  static constexpr int kDigitBits = 11;
  static constexpr uint64_t kDigitMask = (uint64_t{1} << kDigitBits) - 1;

  std::vector<Span> spans_;
  bool known_ = true;
  bool in_order_ = true;
};

}  // namespace pyparam
