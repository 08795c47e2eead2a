// measure, its histograms, norms, fingerprint and compare: the launches of the CUDA build, run on
// the host.
#include <algorithm>
#include <vector>

#include "host.h"
#include "kernels/cuda/bins.h"
#include "kernels/cuda/compare.h"
#include "kernels/cuda/fingerprint.h"
#include "kernels/cuda/measure.h"
#include "kernels/cuda/norm.h"

using namespace pyparam;

namespace {

struct OnHost {
  bool backwards;

  template <typename Body>
  void operator()(Body, int64_t blocks, const typename Body::Arguments& arguments) const {
    run_on_host<Body>(blocks, arguments, backwards);
  }
};

// Calls run(integral_constant) with a number of threads.
template <typename Run>
void with_threads(int threads, const Run& run) {
  if (threads == 32) return run(std::integral_constant<int, 32>{});
  if (threads == 256) return run(std::integral_constant<int, 256>{});
  std::abort();
}

}  // namespace

PYPARAM_TEST_EXPORT void measure(const TableView* table, double* values, int64_t* counts,
                                 int threads, bool backwards) {
  std::vector<Statistics> parts(static_cast<size_t>(table->chunk_count));
  with_threads(threads, [&](auto count) {
    launch_measure<count()>(OnHost{backwards}, *table, parts.data(), values, counts);
  });
}

// Entries of all rows; `bins` and `bin_counts` have room for that many, or are null.
PYPARAM_TEST_EXPORT int64_t bins(const TableView* table, int64_t shortest, const double* values,
                                 int64_t* below, int64_t* offsets, int32_t* bins,
                                 int64_t* bin_counts, int threads, bool backwards) {
  std::vector<int64_t> numels;
  for (int64_t t = 0; t < table->tensor_count; ++t) numels.push_back(table->tensors[t].numel);
  const BinPlan plan = plan_bins(numels, shortest);
  const auto rows = static_cast<int64_t>(numels.size()) + 1;
  std::vector<int64_t> dense(plan.dense_rows.size() * kBins);
  std::vector<int64_t> entries(static_cast<size_t>(rows));
  std::fill_n(below, rows * kLimits, 0);
  const BinColumns columns{below, dense.data(), entries.data(), offsets, bins, bin_counts};
  const auto segments = static_cast<int64_t>(plan.segments.size());
  const auto tables = static_cast<int64_t>(plan.dense_rows.size());
  with_threads(threads, [&](auto count) {
    constexpr int kThreads = count();
    launch_bin_counts<kThreads>(OnHost{backwards}, *table, plan.segments.data(), segments,
                                plan.dense_rows.data(), tables, values, columns);
    if (bins == nullptr) return;
    launch_bin_rows<kThreads>(OnHost{backwards}, *table, plan.segments.data(), segments,
                              plan.dense_rows.data(), tables, values, columns);
  });
  return offsets[rows];
}

PYPARAM_TEST_EXPORT int64_t limit(int i) { return i < kLimits ? rounding_limit(i) : -1; }

PYPARAM_TEST_EXPORT void norm(const TableView* table, double p, bool of_norms, bool wide,
                              char* norm, int threads, bool backwards) {
  std::vector<NormPart> parts(static_cast<size_t>(table->chunk_count));
  with_threads(threads, [&](auto count) {
    launch_norm<count()>(OnHost{backwards}, *table, p, of_norms, parts.data(), wide, norm);
  });
}

PYPARAM_TEST_EXPORT void scale(const TableView* table, const char* norm, bool wide, double max_norm,
                               int threads, bool backwards) {
  with_threads(threads, [&](auto count) {
    launch_scale<count()>(OnHost{backwards}, *table, norm, wide, max_norm);
  });
}

PYPARAM_TEST_EXPORT void fingerprint(const TableView* table, const int64_t* sizes,
                                     const int64_t* ends, uint64_t* digests, int threads,
                                     bool backwards) {
  std::vector<hash::Sums> descriptions;
  std::vector<hash::Sums> sums(static_cast<size_t>(table->tensor_count));
  for (int64_t t = 0; t < table->tensor_count; ++t) {
    const int64_t begin = t == 0 ? 0 : ends[t - 1];
    descriptions.push_back(
        hash::describe_tensor(table->tensors[t].dtype, sizes + begin, ends[t] - begin));
  }
  with_threads(threads, [&](auto count) {
    launch_fingerprint<count()>(OnHost{backwards}, *table, descriptions.data(), sums.data(),
                                reinterpret_cast<hash::Digest*>(digests));
  });
}

PYPARAM_TEST_EXPORT void compare(const TableView* a, const TableView* b, double* values,
                                 int64_t* counts, int threads, bool backwards) {
  std::vector<Difference> parts(static_cast<size_t>(a->chunk_count));
  with_threads(threads, [&](auto count) {
    launch_compare<count()>(OnHost{backwards}, {*a, *b}, parts.data(), values, counts);
  });
}
