#include "kernels/cuda/devices.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>

#include "kernels/cpu/elements.h"
#include "kernels/cpu/formats.h"
#include "table/prefetch.h"

namespace pyparam::cuda {

std::vector<DeviceGroup> groups_of(const char* verb, const char* list, at::TensorList tensors) {
  std::vector<DeviceGroup> groups;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Device device = tensors[i].device();
    TORCH_CHECK_VALUE(device.is_cpu() || device.is_cuda(), verb, ": ", list, "[", i, "] is on ",
                      device, "; expected a tensor on the CPU or a CUDA device");
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const DeviceGroup& g) { return g.device == device; });
    if (group == groups.end()) group = groups.insert(groups.end(), {device, {}, {}});
    group->tensors.push_back(tensors[i]);
    group->places.push_back(static_cast<int64_t>(i));
  }
  const auto on_cpu = [](const DeviceGroup& group) { return group.device.is_cpu(); };
  if (groups.size() > 1 && std::any_of(groups.begin(), groups.end(), on_cpu)) refuse_capture(verb);
  return groups;
}

void refuse_capture(const char* verb) {
  TORCH_CHECK_VALUE(
      c10::cuda::currentStreamCaptureStatusMayInitCtx() == c10::cuda::CaptureStatus::None, verb,
      ": a list of tensors on the CPU and on CUDA devices cannot be captured into a CUDA graph, "
      "which "
      "would replay the devices' part alone; expected tensors on one device");
}

void check_numbers(const char* op, at::TensorList tensors) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    cpu::check_values(op, i, tensors[i]);
    cpu::check_numbers(op, i, tensors[i]);
  }
}

bool on_one_device(at::TensorList tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [&](const at::Tensor& tensor) {
    return tensor.is_cuda() && tensor.device() == tensors[0].device();
  });
}

bool all_ordinary(at::TensorList tensors) {
  using c10::DispatchKey;
  constexpr c10::DispatchKeySet kOdd({DispatchKey::Conjugate, DispatchKey::Negative,
                                      DispatchKey::ZeroTensor, DispatchKey::Python});
  constexpr int64_t kAtOnce = 4096;
  const auto count = static_cast<int64_t>(tensors.size());
  if (count == 0 || !tensors[0].defined() || !tensors[0].is_cuda()) return false;
  const at::Device device = tensors[0].device();
  std::atomic<bool> odd{false};
  at::parallel_for(0, count, kAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto ahead = static_cast<size_t>(i) + kAheadOfTensors;
      if (ahead < tensors.size()) pyparam::prefetch(tensors[ahead]);
      const at::Tensor& tensor = tensors[i];
      const bool ordinary = tensor.defined() && tensor.key_set().has(DispatchKey::CUDA) &&
                            !tensor.key_set().has_any(kOdd) && tensor.layout() == at::kStrided &&
                            tensor.has_storage() && tensor.device() == device &&
                            tensor.is_contiguous() &&
                            cpu::stored_format(tensor.scalar_type()).has_value();
      if (!ordinary) odd = true;
    }
  });
  return !odd;
}

at::Device first_device(at::TensorList tensors) {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [](const at::Tensor& tensor) { return tensor.is_cuda(); });
  TORCH_INTERNAL_ASSERT(found != tensors.end());
  return found->device();
}

at::Tensor brought(const at::Tensor& tensor, at::Device device) {
  return tensor.to(tensor.options().device(device), /*non_blocking=*/device.is_cuda());
}

at::Tensor index_on(const std::vector<int64_t>& places, at::Device device) {
  at::Tensor index = at::empty({static_cast<int64_t>(places.size())}, at::TensorOptions(at::kLong));
  std::copy(places.begin(), places.end(), index.mutable_data_ptr<int64_t>());
  return brought(index, device);
}

std::vector<at::Tensor> in_any_order(at::TensorList tensors) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  std::vector<at::Tensor> out;
  out.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    const bool permuted = !tensor.is_contiguous() && tensor.is_non_overlapping_and_dense();
    out.push_back(permuted ? tensor.as_strided({tensor.numel()}, {1}) : tensor);
  }
  return out;
}

}  // namespace pyparam::cuda
