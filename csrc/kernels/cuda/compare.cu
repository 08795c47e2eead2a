// compare on CUDA: two launches for any number of pairs.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "kernels/cpu/compare.h"
#include "kernels/cpu/pair.h"
#include "kernels/cuda/compare.h"
#include "kernels/cuda/devices.h"
#include "kernels/cuda/launch.cuh"

namespace pyparam::cuda {
namespace {

using Columns = std::tuple<at::Tensor, at::Tensor>;

// What is copied from one device to another at a time, at least one tensor.
constexpr int64_t kCopiedAtOnce = int64_t{256} << 20;

Columns compare_one_device(at::TensorList a, at::TensorList b) {
  const OnDevice on(a[0].device());
  DeviceTable table_a("compare", a, kCompareChunk);
  DeviceTable table_b("compare", b, kCompareChunk);
  ColumnLayout layout;
  table_a.add_to(layout);
  table_b.add_to(layout);
  Upload upload(layout.bytes());
  table_a.write(upload.host());
  table_b.write(upload.host());
  const at::Tensor sent = upload.send(on);
  const char* bytes = static_cast<const char*>(sent.const_data_ptr());
  Columns out = cpu::empty_differences(table_a.tensor_count(), on.device());
  const at::Tensor parts =
      room(on, table_a.chunk_count() * static_cast<int64_t>(sizeof(Difference)));
  launch_compare(Launch{on}, {table_a.view(bytes), table_b.view(bytes)},
                 static_cast<Difference*>(parts.mutable_data_ptr()),
                 std::get<0>(out).mutable_data_ptr<double>(),
                 std::get<1>(out).mutable_data_ptr<int64_t>());
  return out;
}

// Pairs that are compared on one device, and their places.
struct PairGroup {
  at::Device device;
  std::vector<at::Tensor> a, b;
  std::vector<int64_t> places;
  int64_t copied = 0;  // bytes that have to be brought there
};

// Pairs of two devices are compared on the CUDA one, on that of a if both are. What has to be
// copied there is split, so that not a whole model is there twice.
std::vector<PairGroup> pairs_by_device(at::TensorList a, at::TensorList b) {
  std::vector<PairGroup> groups;
  for (size_t i = 0; i < a.size(); ++i) {
    const at::Device device = a[i].is_cuda() ? a[i].device() : b[i].device();
    int64_t copied = 0;
    for (const at::Tensor* side : {&a[i], &b[i]}) {
      TORCH_CHECK_VALUE(side->is_cpu() || side->is_cuda(), "compare: ", side == &a[i] ? "a" : "b",
                        "[", i, "] is on ", side->device(),
                        "; expected a tensor on the CPU or a CUDA device");
      if (side->device() != device) copied += static_cast<int64_t>(side->nbytes());
    }
    auto group = std::find_if(groups.begin(), groups.end(), [&](const PairGroup& g) {
      return g.device == device && (copied == 0) == (g.copied == 0) &&
             (copied == 0 || g.copied + copied <= kCopiedAtOnce);
    });
    if (group == groups.end()) group = groups.insert(groups.end(), {device, {}, {}, {}, 0});
    group->a.push_back(a[i]);
    group->b.push_back(b[i]);
    group->places.push_back(static_cast<int64_t>(i));
    group->copied += copied;
  }
  return groups;
}

std::vector<at::Tensor> all_brought(at::TensorList tensors, at::Device device) {
  std::vector<at::Tensor> out;
  out.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    out.push_back(tensor.device() == device ? tensor : brought(tensor.detach(), device));
  }
  return out;
}

Columns compare(at::TensorList a, at::TensorList b) {
  cpu::check_lengths(a, b);
  for (size_t i = 0; i < a.size(); ++i) {
    const auto place = static_cast<int64_t>(i);
    cpu::check_comparable_values("a", place, a[i]);
    cpu::check_comparable_values("b", place, b[i]);
    cpu::check_shapes(place, a[i], b[i]);
  }
  if (on_one_device(a) && on_one_device(b) && a[0].device() == b[0].device())
    return compare_one_device(a, b);
  const auto on_cpu = [](const at::Tensor& tensor) { return tensor.is_cpu(); };
  if (std::any_of(a.begin(), a.end(), on_cpu) || std::any_of(b.begin(), b.end(), on_cpu))
    refuse_capture("compare");
  const auto rows = static_cast<int64_t>(a.size());
  const bool in_a =
      std::any_of(a.begin(), a.end(), [](const at::Tensor& t) { return t.is_cuda(); });
  const at::Device device = first_device(in_a ? a : b);
  Columns out = cpu::empty_differences(rows, device);
  for (const PairGroup& group : pairs_by_device(a, b)) {
    const Columns part = group.device.is_cpu()
                             ? cpu::compare(group.a, group.b, false, false)
                             : compare_one_device(all_brought(group.a, group.device),
                                                  all_brought(group.b, group.device));
    const at::Tensor index = index_on(group.places, device);
    std::get<0>(out).index_copy_(0, index, brought(std::get<0>(part), device));
    std::get<1>(out).index_copy_(0, index, brought(std::get<1>(part), device));
  }
  return out;
}

}  // namespace
}  // namespace pyparam::cuda

TORCH_LIBRARY_IMPL(pyparam, CUDA, m) { m.impl("compare", &pyparam::cuda::compare); }
