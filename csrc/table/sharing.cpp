#include "table/sharing.h"

#include <utility>

#include "table/ties.h"

namespace pyparam {

Sharing find_sharing(const std::vector<at::Tensor>& tensors) {
  TieSearch search(tensors, {});
  search.search();
  TieSets sets = search.result();
  Sharing sharing;
  sharing.cluster.assign(tensors.size(), -1);
  sharing.previous.assign(tensors.size(), -1);
  sharing.fresh_bytes = std::move(sets.bytes);
  sharing.members = sets.groups();
  for (size_t c = 0; c < sharing.members.size(); ++c) {
    int64_t previous = -1;
    for (const int64_t member : sharing.members[c]) {
      sharing.cluster[member] = static_cast<int64_t>(c);
      sharing.previous[member] = previous;
      previous = member;
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
