// Runs a chunk plan on torch's own threads. The caller must not hold the GIL.
#pragma once

#include <ATen/Parallel.h>

#include <atomic>

#include "kernels/chunks.h"

namespace pyparam::cpu {

// Calls fn(chunk, index) for every chunk of the plan, each exactly once. Threads take groups as
// they become free, so the order is not fixed: fn must write only what belongs to its chunk.
template <typename Fn>
void for_each_chunk(const ChunkPlan& plan, const Fn& fn) {
  const auto groups = static_cast<int64_t>(plan.groups.size()) - 1;
  const auto run = [&](int64_t group) {
    for (int64_t c = plan.groups[group]; c < plan.groups[group + 1]; ++c) fn(plan.chunks[c], c);
  };
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), groups);
  if (threads <= 1 || at::in_parallel_region()) {
    for (int64_t g = 0; g < groups; ++g) run(g);
    return;
  }
  std::atomic<int64_t> next{0};
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t g = next.fetch_add(1); g < groups; g = next.fetch_add(1)) run(g);
  });
}

}  // namespace pyparam::cpu
