// Blocks of pinned memory that CUDA graphs have given back. No CUDA and no torch header.
//
// A graph that ends calls back from a thread that may make no CUDA call, through C, which no
// exception may cross: so blocks are never freed, only used again by later graphs, and giving one
// back links it into a list, without allocating and without a lock that may throw.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>

namespace pyparam::cuda {

struct GraphBlock {
  char* host = nullptr;
  int64_t bytes = 0;
  GraphBlock* next = nullptr;
};

class SpareBlocks {
 public:
  // The smallest that is large enough; null where there is none.
  GraphBlock* take(int64_t bytes) noexcept {
    const Locked locked(busy_);
    GraphBlock** best = nullptr;
    for (GraphBlock** at = &free_; *at != nullptr; at = &(*at)->next) {
      if ((*at)->bytes >= bytes && (best == nullptr || (*at)->bytes < (*best)->bytes)) best = at;
    }
    if (best == nullptr) return nullptr;
    GraphBlock* const block = *best;
    *best = block->next;
    return block;
  }
  void give_back(GraphBlock* block) noexcept {
    const Locked locked(busy_);
    block->next = free_;
    free_ = block;
  }

 private:
  // A mutex may throw; this may not. What it guards is a walk over a short list.
  class Locked {
   public:
    explicit Locked(std::atomic_flag& busy) noexcept : busy_(busy) {
      while (busy_.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
    }
    ~Locked() { busy_.clear(std::memory_order_release); }
    Locked(const Locked&) = delete;
    Locked& operator=(const Locked&) = delete;

   private:
    std::atomic_flag& busy_;
  };
  // `noexcept` turns a throw into an abort: what runs inside must not throw either.
  static_assert(noexcept(std::declval<std::atomic_flag&>().test_and_set()) &&
                noexcept(std::this_thread::yield()));

  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  GraphBlock* free_ = nullptr;
};

}  // namespace pyparam::cuda
