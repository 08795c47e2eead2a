// fingerprint on CUDA: two launches for any number of tensors.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "kernels/cpu/fingerprint.h"
#include "kernels/cuda/devices.h"
#include "kernels/cuda/fingerprint.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/operands.h"

namespace pyparam::cuda {
namespace {

at::Tensor fingerprint_one_device(at::TensorList tensors) {
  const OnDevice on(tensors[0].device());
  DeviceTable table("fingerprint", tensors, kHashChunk);
  const int64_t count = table.tensor_count();
  ColumnLayout layout;
  table.add_to(layout);
  const int64_t descriptions_at = layout.add<hash::Sums>(count);
  Upload upload(layout.bytes());
  table.write(upload.host());
  auto* descriptions = reinterpret_cast<hash::Sums*>(upload.host() + descriptions_at);
  for (int64_t t = 0; t < count; ++t) {
    const auto shape = tensors[t].sizes();
    descriptions[t] = hash::describe_tensor(static_cast<int>(tensors[t].scalar_type()),
                                            shape.data(), static_cast<int64_t>(shape.size()));
  }
  const at::Tensor sent = upload.send(on);
  const char* bytes = static_cast<const char*>(sent.const_data_ptr());
  const auto longs = at::TensorOptions(at::kLong).device(on.device());
  const at::Tensor sums = at::zeros({count, 2}, longs);
  at::Tensor digests = at::empty({count, 2}, longs);
  static_assert(sizeof(hash::Sums) == 16 && sizeof(hash::Digest) == 16, "two words");
  launch_fingerprint(Launch{on}, table.view(bytes),
                     reinterpret_cast<const hash::Sums*>(bytes + descriptions_at),
                     static_cast<hash::Sums*>(sums.mutable_data_ptr()),
                     static_cast<hash::Digest*>(digests.mutable_data_ptr()));
  return digests;
}

at::Tensor fingerprint(at::TensorList tensors) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto place = static_cast<int64_t>(i);
    check_strided("fingerprint", "tensors", place, tensors[i]);
    check_memory("fingerprint", "tensors", place, tensors[i]);
  }
  if (on_one_device(tensors)) return fingerprint_one_device(tensors);
  const at::Device device = first_device(tensors);
  at::Tensor out = at::empty({static_cast<int64_t>(tensors.size()), 2},
                             at::TensorOptions(at::kLong).device(device));
  for (const DeviceGroup& group : groups_of("fingerprint", "tensors", tensors)) {
    const at::Tensor part = group.device.is_cpu() ? cpu::fingerprint(group.tensors, false)
                                                  : fingerprint_one_device(group.tensors);
    out.index_copy_(0, index_on(group.places, device), brought(part, device));
  }
  return out;
}

}  // namespace
}  // namespace pyparam::cuda

TORCH_LIBRARY_IMPL(pyparam, CUDA, m) { m.impl("fingerprint", &pyparam::cuda::fingerprint); }
