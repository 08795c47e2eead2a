// Which tensors of a list share memory, and how. It knows tensors only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace pyparam {

// Each column names a set by its smallest member, so column[i] == i where i leads its set or is
// alone. The sets nest: the same tensor object, within the same bytes under the same layout, within
// a common byte.
struct TieSets {
  std::vector<int64_t> object;
  std::vector<int64_t> layout;
  std::vector<int64_t> memory;
  // The bytes of a tensor that none before it has. Over a memory set they add up to its bytes,
  // counted once; an upper bound where the set is vague.
  std::vector<int64_t> bytes;
  // Per leader of a memory set: 1 where an overlap was assumed from bounding intervals and not
  // shown.
  std::vector<char> vague;
  // Where the tensor begins, in bytes from the first byte of its memory set. 0 for a tensor without
  // memory.
  std::vector<int64_t> offset;

  int64_t size() const { return static_cast<int64_t>(object.size()); }
  int64_t total_bytes() const;
  bool apart() const;  // every tensor is a memory set of its own
  // The members of every memory set of two or more, in order, ordered by leader.
  std::vector<std::vector<int64_t>> groups() const;
};

// A wrapper tensor (a DTensor, say) whose memory is that of tensors it holds: `inner` stands in for
// tensors[index].
using Held = std::pair<int64_t, std::vector<at::Tensor>>;

// The indices of tensors that dispatch to Python: some of them may be wrappers.
std::vector<int64_t> python_tensors(const std::vector<at::Tensor>& tensors);

// Memory is compared by address on CPU and CUDA, so that two storages over the same bytes are seen,
// and by storage where there is no address (meta, a freed storage, other devices). A tensor of no
// bytes shares with itself alone.
//
// Reading tensors and searching are apart: a tensor may dispatch to Python, and another thread may
// give it other memory, so that the GIL must be held from the constructor to its end and in
// result(), and need not be in search().
class TieSearch {
 public:
  // The tensors must outlive the search.
  TieSearch(const std::vector<at::Tensor>& tensors, const std::vector<Held>& held);
  ~TieSearch();
  void search();
  TieSets result();

 private:
  class Builder;
  std::unique_ptr<Builder> builder_;
};

}  // namespace pyparam
