// Runs a chunk plan on torch's own threads. The caller must not hold the GIL.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "kernels/chunks.h"
#include "kernels/cpu/isa.h"
#include "kernels/interrupt.h"

namespace pyparam::cpu {

// Calls make(worker) once on each thread that takes part, and what it gives for tasks as fn(task),
// each of them exactly once, with exact floats. Workers count from 0 and are fewer than
// at::get_num_threads(). Threads take tasks as they become free, so the order is not fixed: fn must
// write only what belongs to its task or its worker. Throws what the caller throws who does not
// want to wait for the end (interrupt.h).
template <typename Make>
void for_each_task_by_worker(int64_t tasks, Pass pass, const Make& make) {
  const auto caller = std::this_thread::get_id();
  Interruption interruption(pass);
  std::atomic<int64_t> next{0};
  const auto work = [&](int64_t worker) {
    const ExactFloats exact;
    const auto& fn = make(worker);
    const bool asks = std::this_thread::get_id() == caller;
    for (int64_t task = next.fetch_add(1); task < tasks && !interruption.stopped();
         task = next.fetch_add(1)) {
      fn(task);
      if (asks) interruption.ask();
    }
  };
  const int64_t threads = std::min<int64_t>(at::get_num_threads(), tasks);
  if (threads <= 1 || at::in_parallel_region()) {
    work(0);
  } else {
    at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t) { work(begin); });
  }
  interruption.rethrow();
}

// The same for chunks of a plan, as fn(chunk, index); a task is a group of them.
template <typename Make>
void for_each_chunk_by_worker(const ChunkPlan& plan, Pass pass, const Make& make) {
  for_each_task_by_worker(static_cast<int64_t>(plan.groups.size()) - 1, pass, [&](int64_t worker) {
    return [&plan, fn = make(worker)](int64_t group) {
      for (int64_t c = plan.groups[group]; c < plan.groups[group + 1]; ++c) fn(plan.chunks[c], c);
    };
  });
}

// The same with one fn for all threads.
template <typename Fn>
void for_each_chunk(const ChunkPlan& plan, Pass pass, const Fn& fn) {
  for_each_chunk_by_worker(plan, pass, [&fn](int64_t) {
    return [&fn](const Chunk& chunk, int64_t index) { fn(chunk, index); };
  });
}

}  // namespace pyparam::cpu
