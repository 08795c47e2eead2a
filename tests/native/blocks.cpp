// The pinned blocks that graphs give back, from many threads.
#include <atomic>
#include <thread>
#include <vector>

#include "host.h"
#include "kernels/cuda/spare_blocks.h"

using namespace pyparam::cuda;

PYPARAM_TEST_EXPORT int64_t best_fit(const int64_t* sizes, int64_t count, int64_t wanted) {
  SpareBlocks spare;
  std::vector<GraphBlock> blocks(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    blocks[i].bytes = sizes[i];
    spare.give_back(&blocks[i]);
  }
  const GraphBlock* const taken = spare.take(wanted);
  return taken == nullptr ? -1 : taken->bytes;
}

// How often a block was in two hands at once, and how many were there in the end.
PYPARAM_TEST_EXPORT void hammer(int threads, int rounds, int64_t* twice, int64_t* left) {
  constexpr int kBlocks = 3;
  SpareBlocks spare;
  GraphBlock blocks[kBlocks];
  std::atomic<int> hands[kBlocks] = {};
  for (GraphBlock& block : blocks) {
    block.bytes = 1;
    spare.give_back(&block);
  }
  std::atomic<int64_t> found{0};
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t) {
    all.emplace_back([&] {
      for (int i = 0; i < rounds; ++i) {
        GraphBlock* const block = spare.take(1);
        if (block == nullptr) continue;
        std::atomic<int>& hand = hands[block - blocks];
        if (hand.fetch_add(1) != 0) ++found;
        hand.fetch_sub(1);
        spare.give_back(block);
      }
    });
  }
  for (std::thread& thread : all) thread.join();
  *twice = found;
  *left = 0;
  while (spare.take(1) != nullptr) ++*left;
}
