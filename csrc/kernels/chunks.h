// The chunk planner: bulk work over many tensors, cut into fixed-size pieces.
//
// One planner serves every verb, on the CPU and on CUDA. A plan depends on the element counts and
// the chunk size alone, never on the number of threads, so partial results that combine in chunk
// order are bit-identical on every machine.
#pragma once

#include <cstdint>
#include <vector>

namespace pyparam {

// Elements [begin, begin + length) of the tensor at index `tensor`. length > 0.
struct Chunk {
  int64_t tensor;
  int64_t begin;
  int64_t length;
};

struct ChunkPlan {
  std::vector<Chunk> chunks;  // in tensor order, then in element order; empty tensors have none
  std::vector<int64_t>
      first;  // first[t] .. first[t + 1] are the chunks of tensor t; size tensors + 1
  std::vector<int64_t> groups;  // groups[g] .. groups[g + 1] are chunks worth doing as one task
};

// Cuts tensors of the given element counts into chunks of at most `chunk_elements`, and bundles
// consecutive small chunks into groups of about `group_elements`, so that 50,000 tiny tensors are a
// few hundred tasks.
ChunkPlan plan_chunks(const std::vector<int64_t>& numels, int64_t chunk_elements,
                      int64_t group_elements);

}  // namespace pyparam
