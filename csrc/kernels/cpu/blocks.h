// How a pass goes through a list whose tensors of few values it takes as they come: a block of rows
// after the other, and in each the values of some tensors behind what is known of the next.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/cpu/elements.h"
#include "kernels/cpu/few.h"
#include "kernels/macros.h"

namespace pyparam::cpu {

// Rows of a list, which are one task.
struct RowBlock {
  static constexpr int64_t kRows = 1024;
  static_assert(kRows % LayoutColumns::kBlock == 0);

  int64_t begin;
  int64_t end;

  static int64_t count(const ElementList& list) {
    return (static_cast<int64_t>(list.size()) + kRows - 1) / kRows;
  }
  RowBlock(const ElementList& list, int64_t index)
      : begin(index * kRows), end(std::min(begin + kRows, static_cast<int64_t>(list.size()))) {}
};

// What a pass finds of the rows of a list.
struct ListRows {
  std::vector<int64_t> others;  // those that it does not take as they come, ascending
  int64_t numel = 0;
  int64_t nbytes = 0;

  // Of rows behind these.
  void append(const ListRows& rows) {
    others.insert(others.end(), rows.others.begin(), rows.others.end());
    numel += rows.numel;
    nbytes += rows.nbytes;
  }
};

// The elements of a block: those of a reader's list are read, those of a list without are there.
// `whole` says which ones are taken as they come.
template <typename Whole>
class BlockAhead final : public ElementsAhead {
 public:
  BlockAhead(const ElementList& list, OrdinaryReader* reader, const RowBlock& block,
             const Whole& whole, ListRows& rows)
      : list_(list),
        reader_(reader),
        whole_(whole),
        rows_(rows),
        next_(block.begin),
        end_(block.end) {}

  bool reach(int64_t end) override {
    const int64_t last = std::min(end + kAhead, end_);
    if (reader_ != nullptr && next_ < last &&
        !reader_->read(static_cast<size_t>(next_), static_cast<size_t>(last)))
      return false;
    for (; next_ < last; ++next_) {
      const Elements& e = list_[static_cast<size_t>(next_)];
      rows_.numel += e.numel();
      rows_.nbytes += e.bytes();
      if (!whole_(e)) {
        rows_.others.push_back(next_);
      } else if (reader_ == nullptr) {
        prefetch_span(e.data, e.bytes());
      }
    }
    return true;
  }

 private:
  static constexpr int64_t kAhead = 12;  // tensors, whose values come meanwhile

  const ElementList& list_;
  OrdinaryReader* reader_;
  const Whole& whole_;
  ListRows& rows_;
  int64_t next_;
  int64_t end_;
};

}  // namespace pyparam::cpu
