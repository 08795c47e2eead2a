// How a list is divided among threads: tensors of few values a block of rows after the other, all
// others in chunks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/chunks.h"
#include "kernels/cpu/elements.h"
#include "kernels/macros.h"

namespace pyparam::cpu {

// Tasks count from 0; to each belong the block of rows and the group of chunks of that number, as
// far as there are such.
struct Cut {
  static constexpr int64_t kBlock = 1024;
  static constexpr int64_t kAhead =
      12;  // small tensors whose memory is asked for while one is read

  std::vector<int64_t> rows;  // that are cut into chunks
  ChunkPlan plan;             // of those, each by its place among them
  int64_t size;               // of the list
  int64_t numel = 0;
  int64_t nbytes = 0;

  // `whole` says of an element of the list whether it is read as a whole.
  template <typename Whole>
  Cut(const ElementList& list, int64_t chunk, int64_t group, const Whole& whole)
      : size(static_cast<int64_t>(list.size())) {
    std::vector<int64_t> values;
    for (size_t t = 0; t < list.size(); ++t) {
      const Elements& e = list[t];
      numel += e.numel();
      nbytes += e.bytes();
      if (whole(e)) continue;
      rows.push_back(static_cast<int64_t>(t));
      values.push_back(e.values);
    }
    plan = plan_chunks(values, chunk, group);
  }

  int64_t blocks() const {
    return static_cast<int64_t>(rows.size()) == size ? 0 : (size + kBlock - 1) / kBlock;
  }
  int64_t groups() const { return static_cast<int64_t>(plan.groups.size()) - 1; }
  int64_t tasks() const { return std::max(blocks(), groups()); }
  int64_t chunks(size_t k) const { return plan.first[k + 1] - plan.first[k]; }

  // The task's block of rows is [begin_of(task), end_of(task)).
  static int64_t begin_of(int64_t task) { return task * kBlock; }
  int64_t end_of(int64_t task) const {
    return task < blocks() ? std::min((task + 1) * kBlock, size) : begin_of(task);
  }
  // Calls fn(piece, index, k) with each chunk of the task's group: with the row of the list for its
  // tensor, with its index in the plan, and with the place of its tensor among `rows`.
  template <typename Fn>
  PYPARAM_INLINE void for_each_piece(const ElementList& list, int64_t task, const Fn& fn) const {
    if (task >= groups()) return;
    for (int64_t c = plan.groups[task]; c < plan.groups[task + 1]; ++c) {
      if (c + kAhead < static_cast<int64_t>(plan.chunks.size())) list.prefetch(piece(c + kAhead));
      fn(piece(c), c, static_cast<size_t>(plan.chunks[c].tensor));
    }
  }

 private:
  Chunk piece(int64_t index) const {
    const Chunk& chunk = plan.chunks[static_cast<size_t>(index)];
    return {rows[static_cast<size_t>(chunk.tensor)], chunk.begin, chunk.length};
  }
};

}  // namespace pyparam::cpu
