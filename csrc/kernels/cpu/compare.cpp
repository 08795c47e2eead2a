// pyparam::compare on the CPU: what tensors differ by, pair by pair, each element read once.
#include "kernels/cpu/compare.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "kernels/chunks.h"
#include "kernels/compare.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/pages.h"
#include "kernels/cpu/pair.h"
#include "kernels/cpu/parallel.h"
#include "kernels/operands.h"

namespace pyparam::cpu {

void check_lengths(at::TensorList a, at::TensorList b) {
  TORCH_CHECK_VALUE(a.size() == b.size(), "compare: a has ", a.size(), " tensors and b has ",
                    b.size(), "; expected pairs");
}

void check_shapes(int64_t i, const at::Tensor& a, const at::Tensor& b) {
  TORCH_CHECK_VALUE(a.sizes() == b.sizes(), "compare: a[", i, "] has the shape ", a.sizes(),
                    " and b[", i, "] has ", b.sizes(), "; expected equal shapes");
}

namespace {

// A partial result covers this many elements, the same everywhere: sums may not depend on threads.
constexpr int64_t kChunk = 16 * kBlock;

using Columns = std::tuple<at::Tensor, at::Tensor>;

Columns compare_meta(at::TensorList a, at::TensorList b) {
  check_lengths(a, b);
  for (size_t i = 0; i < a.size(); ++i) {
    const auto shape_a = a[i].sym_sizes();
    const auto shape_b = b[i].sym_sizes();
    TORCH_CHECK_VALUE(shape_a.size() == shape_b.size(), "compare: a[", i, "] has ", shape_a.size(),
                      " dimensions and b[", i, "] has ", shape_b.size(), "; expected equal shapes");
  }
  return empty_differences(static_cast<int64_t>(a.size()), at::kMeta);
}

Columns compare_op(at::TensorList a, at::TensorList b) { return compare(a, b, false, false); }

}  // namespace

std::tuple<at::Tensor, at::Tensor> empty_differences(int64_t rows, at::Device device) {
  const auto options = at::TensorOptions().device(device);
  return {at::empty({rows, kDifferenceValues}, options.dtype(at::kDouble)),
          at::empty({rows, kDifferenceCounts}, options.dtype(at::kLong))};
}

ChunkPlan plan_comparison(at::TensorList a, at::TensorList b) {
  check_lengths(a, b);
  std::vector<int64_t> numels(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    prefetch_ahead(a, i);
    prefetch_ahead(b, i);
    check_comparable("a", index, a[i]);
    check_comparable("b", index, b[i]);
    check_shapes(index, a[i], b[i]);
    numels[i] = a[i].numel();
  }
  return plan_chunks(numels, kChunk, kChunk);
}

std::vector<Difference> compare_chunks(at::TensorList a, at::TensorList b, const ChunkPlan& plan,
                                       bool release_a, bool release_b) {
  const PageReleaser pages_a(release_a);
  const PageReleaser pages_b(release_b);
  std::vector<Difference> partial(plan.chunks.size());
  for_each_chunk(plan, Pass::kReads, [&](const Chunk& chunk, int64_t index) {
    prefetch_ahead(a, static_cast<size_t>(chunk.tensor));
    prefetch_ahead(b, static_cast<size_t>(chunk.tensor));
    partial[index] = compare_run(a[chunk.tensor], b[chunk.tensor], chunk.begin, chunk.length);
    const auto release = [&](const PageReleaser& pages, const at::Tensor& tensor) {
      const auto item = static_cast<int64_t>(tensor.itemsize());
      pages.release_read(tensor, chunk.begin * item, chunk.length * item);
    };
    release(pages_a, a[chunk.tensor]);
    release(pages_b, b[chunk.tensor]);
  });
  return partial;
}

std::tuple<at::Tensor, at::Tensor> compare(at::TensorList a, at::TensorList b, bool release_a,
                                           bool release_b) {
  const ExactFloats mode;  // for what is combined and written here
  const auto rows = static_cast<int64_t>(a.size());
  const ChunkPlan plan = plan_comparison(a, b);
  const std::vector<Difference> partial = compare_chunks(a, b, plan, release_a, release_b);
  Columns out = empty_differences(rows, at::kCPU);
  double* values = std::get<0>(out).mutable_data_ptr<double>();
  int64_t* counts = std::get<1>(out).mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < rows; ++i) {
    Difference sum;
    for (int64_t c = plan.first[i]; c < plan.first[i + 1]; ++c) sum = combine(sum, partial[c]);
    write_difference(sum, a[i].numel(), values + i * kDifferenceValues,
                     counts + i * kDifferenceCounts);
  }
  return out;
}

// On every backend without a kernel of its own, which it refuses in words.
TORCH_LIBRARY_IMPL(pyparam, CompositeExplicitAutograd, m) { m.impl("compare", &compare_op); }
TORCH_LIBRARY_IMPL(pyparam, Meta, m) { m.impl("compare", &compare_meta); }
TORCH_LIBRARY_IMPL(pyparam, Autograd, m) {
  m.impl("compare", torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(pyparam, ADInplaceOrView, m) {
  m.impl("compare", torch::CppFunction::makeFallthrough());
}

}  // namespace pyparam::cpu
