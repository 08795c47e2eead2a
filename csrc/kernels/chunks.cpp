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
  const auto tensors = static_cast<int64_t>(numels.size());
  size_t count = 0;
  for (int64_t numel : numels)
    count += static_cast<size_t>((numel + chunk_elements - 1) / chunk_elements);
  plan.chunks.reserve(count);
  plan.first.reserve(numels.size() + 1);
  plan.groups.push_back(0);
  int64_t in_group = 0;
  for (int64_t t = 0; t < tensors; ++t) {
    plan.first.push_back(static_cast<int64_t>(plan.chunks.size()));
    for (int64_t begin = 0; begin < numels[t]; begin += chunk_elements) {
      const int64_t length = std::min(chunk_elements, numels[t] - begin);
      plan.chunks.push_back({t, begin, length});
      in_group += length;
      if (in_group >= group_elements) {
        plan.groups.push_back(static_cast<int64_t>(plan.chunks.size()));
        in_group = 0;
      }
    }
  }
  plan.first.push_back(static_cast<int64_t>(plan.chunks.size()));
  if (plan.groups.back() != static_cast<int64_t>(plan.chunks.size())) {
    plan.groups.push_back(static_cast<int64_t>(plan.chunks.size()));
  }
  return plan;
}

}  // namespace pyparam
