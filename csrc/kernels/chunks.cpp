#include "kernels/chunks.h"

#include <algorithm>
#include <stdexcept>

namespace pyparam {

ChunkPlan plan_chunks(const std::vector<int64_t>& numels, int64_t chunk_elements,
                      int64_t group_elements) {
  if (chunk_elements <= 0 || group_elements <= 0) {
    throw std::logic_error(
        "pyparam internal error, please report: a chunk of no elements was asked for");
  }
  ChunkPlan plan;
  const size_t tensors = numels.size();
  size_t count = 0;
  // Most tensors are no larger than a chunk, and a division takes longer than all else here.
  for (const int64_t numel : numels) {
    count +=
        static_cast<size_t>(numel <= chunk_elements ? numel > 0 : 1 + (numel - 1) / chunk_elements);
  }
  plan.chunks.resize(count);
  plan.first.resize(tensors + 1);
  plan.groups.push_back(0);
  Chunk* chunk = plan.chunks.data();
  const auto done = [&] { return static_cast<int64_t>(chunk - plan.chunks.data()); };
  int64_t in_group = 0;
  for (size_t t = 0; t < tensors; ++t) {
    plan.first[t] = done();
    for (int64_t begin = 0; begin < numels[t]; begin += chunk_elements) {
      const int64_t length = std::min(chunk_elements, numels[t] - begin);
      *chunk++ = {static_cast<int64_t>(t), begin, length};
      in_group += length;
      if (in_group >= group_elements) {
        plan.groups.push_back(done());
        in_group = 0;
      }
    }
  }
  plan.first[tensors] = done();
  if (plan.groups.back() != done()) plan.groups.push_back(done());
  return plan;
}

}  // namespace pyparam
