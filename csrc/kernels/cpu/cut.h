// How some rows of a list are divided among threads: in chunks.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/chunks.h"
#include "kernels/cpu/elements.h"
#include "kernels/macros.h"

namespace pyparam::cpu {

struct Cut {
  static constexpr int64_t kAhead = 12;  // small ones whose memory is asked for while one is read

  std::vector<int64_t> rows;
  ChunkPlan plan;  // of those, each by its place among them

  Cut(const ElementList& list, std::vector<int64_t> of, int64_t chunk, int64_t group)
      : rows(std::move(of)) {
    std::vector<int64_t> values;
    values.reserve(rows.size());
    for (const int64_t row : rows) values.push_back(list[static_cast<size_t>(row)].values);
    plan = plan_chunks(values, chunk, group);
  }

  // A task is a group of chunks.
  int64_t tasks() const { return static_cast<int64_t>(plan.groups.size()) - 1; }
  int64_t chunks(size_t k) const { return plan.first[k + 1] - plan.first[k]; }

  // Calls fn(piece, index, k) with each chunk of the task: with the row of the list for its tensor,
  // with its index in the plan, and with the place of its tensor among `rows`.
  template <typename Fn>
  PYPARAM_INLINE void for_each_piece(const ElementList& list, int64_t task, const Fn& fn) const {
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
