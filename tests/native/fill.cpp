#include "kernels/cuda/fill.h"

#include <vector>

#include "host.h"

using namespace pyparam;
using random::Map;

namespace {

template <Map map>
void draw(const cuda::FillArguments& a, double* moments, bool backwards) {
  cuda::FillArguments arguments = a;
  std::vector<cuda::FillSums> partial(static_cast<size_t>(a.table.chunk_count) + 1);
  if (moments != nullptr) arguments.partial = partial.data();
  run_on_host<cuda::FillBody<map>>(a.table.chunk_count, arguments, backwards);
  if (moments == nullptr) return;
  run_on_host<cuda::FillMoments>(a.table.tensor_count,
                                 {a.table, a.sources, a.draws, partial.data(), moments}, backwards);
}

}  // namespace

// All tensors by one kind; `sources` as columns. Returns whether the draw's map was `map`.
PYPARAM_TEST_EXPORT int map_of(int kind, const double* parameters, int stored) {
  return static_cast<int>(random::prepared(static_cast<random::Kind>(kind), parameters,
                                           static_cast<random::Stored>(stored))
                              .map);
}

PYPARAM_TEST_EXPORT void run_fill(const TableView* table, const cuda::FillSource* sources,
                                  const ExtentRow* extents, int kind, const double* parameters,
                                  int stored, uint64_t seed, double* moments, bool backwards) {
  const random::Draw prepared = random::prepared(static_cast<random::Kind>(kind), parameters,
                                                 static_cast<random::Stored>(stored));
  const cuda::FillArguments a{*table, sources, extents, &prepared, seed, nullptr};
  switch (prepared.map) {
    case Map::kUniform:
      return draw<Map::kUniform>(a, moments, backwards);
    case Map::kNormal:
      return draw<Map::kNormal>(a, moments, backwards);
    case Map::kTruncated:
      return draw<Map::kTruncated>(a, moments, backwards);
    case Map::kFarTail:
      return draw<Map::kFarTail>(a, moments, backwards);
    default:
      return;
  }
}

PYPARAM_TEST_EXPORT void run_constant(const TableView* table, const int32_t* pattern_of,
                                      const cuda::FillPattern* patterns, bool backwards) {
  run_on_host<cuda::FillConstant>(table->chunk_count, {*table, pattern_of, patterns}, backwards);
}
