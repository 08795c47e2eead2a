#include "table/sharing.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace pyparam {

namespace {

// Bytes [begin, end) in a space: an address space of a device, or one storage that has no memory.
struct Range {
  uintptr_t space;
  uintptr_t begin;
  uintptr_t end;
  int64_t tensor;
};

// A space of the tensor's own, in which the same object falls on itself.
Range own_range(const at::Tensor& tensor, int64_t index) {
  return {reinterpret_cast<uintptr_t>(tensor.unsafeGetTensorImpl()), 0, 1, index};
}

Range range_of(const at::Tensor& tensor, int64_t index) {
  try {
    if (!tensor.has_storage() || tensor.layout() != at::kStrided) return own_range(tensor, index);
    int64_t last = 0;
    const auto sizes = tensor.sizes();
    const auto strides = tensor.strides();
    for (size_t d = 0; d < sizes.size(); ++d) {
      if (sizes[d] == 0) return own_range(tensor, index);
      last += (sizes[d] - 1) * strides[d];
    }
    const auto item = static_cast<int64_t>(tensor.itemsize());
    c10::StorageImpl* storage = tensor.storage().unsafeGetStorageImpl();
    // The address is compared, never read, so a storage that guards its pointer (a fake one) need
    // not mind.
    const auto address = reinterpret_cast<uintptr_t>(storage->_mutable_data_ptr_no_checks().get());
    const auto begin = address + static_cast<uintptr_t>(tensor.storage_offset() * item);
    // Storages without memory are their own spaces: their addresses are odd, devices' numbers are
    // small.
    const uintptr_t space = address == 0 ? reinterpret_cast<uintptr_t>(storage) + 1
                                         : static_cast<uintptr_t>(tensor.device().type()) * 256 +
                                               static_cast<uint8_t>(tensor.device().index());
    return {space, begin, begin + static_cast<uintptr_t>((last + 1) * item), index};
  } catch (const std::exception&) {
    return own_range(tensor, index);
  }
}

// A set of bytes as disjoint ranges, begin to end.
class Bytes {
 public:
  // Adds [begin, end) and returns how many of its bytes were not in the set.
  int64_t add(uintptr_t begin, uintptr_t end) {
    int64_t fresh = static_cast<int64_t>(end - begin);
    auto it = ranges_.upper_bound(begin);
    if (it != ranges_.begin() && std::prev(it)->second >= begin) --it;
    while (it != ranges_.end() && it->first <= end) {
      const uintptr_t low = std::max(it->first, begin), high = std::min(it->second, end);
      if (high > low) fresh -= static_cast<int64_t>(high - low);
      begin = std::min(begin, it->first);
      end = std::max(end, it->second);
      it = ranges_.erase(it);
    }
    ranges_.emplace(begin, end);
    return fresh;
  }

 private:
  std::map<uintptr_t, uintptr_t> ranges_;
};

}  // namespace

Sharing find_sharing(const std::vector<at::Tensor>& tensors) {
  const auto count = static_cast<int64_t>(tensors.size());
  Sharing sharing;
  sharing.cluster.assign(tensors.size(), -1);
  sharing.previous.assign(tensors.size(), -1);
  sharing.fresh_bytes.assign(tensors.size(), 0);

  std::vector<Range> ranges;
  ranges.reserve(tensors.size());
  for (int64_t i = 0; i < count; ++i) ranges.push_back(range_of(tensors[i], i));
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return std::tie(a.space, a.begin, a.tensor) < std::tie(b.space, b.begin, b.tensor);
  });

  // Runs of overlapping ranges, each found once its end is behind.
  std::vector<std::vector<Range>> runs;
  for (size_t i = 0; i < ranges.size();) {
    size_t j = i + 1;
    uintptr_t end = ranges[i].end;
    while (j < ranges.size() && ranges[j].space == ranges[i].space && ranges[j].begin < end) {
      end = std::max(end, ranges[j].end);
      ++j;
    }
    if (j - i > 1) {
      runs.emplace_back(ranges.begin() + static_cast<std::ptrdiff_t>(i),
                        ranges.begin() + static_cast<std::ptrdiff_t>(j));
      std::sort(runs.back().begin(), runs.back().end(),
                [](const Range& a, const Range& b) { return a.tensor < b.tensor; });
    }
    i = j;
  }
  std::sort(runs.begin(), runs.end(),
            [](const auto& a, const auto& b) { return a.front().tensor < b.front().tensor; });

  for (const auto& run : runs) {
    Bytes seen;
    int64_t previous = -1;
    std::vector<int64_t>& members = sharing.members.emplace_back();
    members.reserve(run.size());
    for (const Range& range : run) {
      sharing.cluster[range.tensor] = static_cast<int64_t>(sharing.members.size()) - 1;
      sharing.previous[range.tensor] = previous;
      // A range can be longer than its elements (strides) and shorter (expanded).
      sharing.fresh_bytes[range.tensor] =
          std::min(seen.add(range.begin, range.end), bytes_of(tensors[range.tensor]));
      previous = range.tensor;
      members.push_back(range.tensor);
    }
  }
  return sharing;
}

int64_t elements_of(const at::Tensor& tensor) noexcept {
  try {
    return tensor.numel();
  } catch (...) {
    return 0;
  }
}

int64_t bytes_of(const at::Tensor& tensor) noexcept {
  try {
    const auto dense = [](const at::Tensor& t) {
      return t.numel() * static_cast<int64_t>(t.itemsize());
    };
    switch (tensor.layout()) {
      case at::kSparse:
        return dense(tensor._indices()) + dense(tensor._values());
      case at::kSparseCsr:
      case at::kSparseBsr:
        return dense(tensor.crow_indices()) + dense(tensor.col_indices()) + dense(tensor.values());
      case at::kSparseCsc:
      case at::kSparseBsc:
        return dense(tensor.ccol_indices()) + dense(tensor.row_indices()) + dense(tensor.values());
      default:
        return dense(tensor);
    }
  } catch (...) {
    return 0;
  }
}

}  // namespace pyparam
