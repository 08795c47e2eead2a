// total_norm and clip_grad_norm_ on CUDA: two launches, and one more to scale. Neither waits for
// the device.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <torch/library.h>

#include <cmath>
#include <vector>

#include "kernels/cpu/norm.h"
#include "kernels/cuda/devices.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/norm.h"
#include "kernels/memory_spans.h"

namespace pyparam::cuda {
namespace {

at::Tensor norm_one_device(const char* op, at::TensorList tensors, double p, bool of_norms,
                           at::ScalarType dtype) {
  const OnDevice on(tensors[0].device());
  DeviceTable table(op, tensors, kNormChunk);
  const SentTable sent = send_table(on, table);
  const at::Tensor parts = room(on, table.chunk_count() * static_cast<int64_t>(sizeof(NormPart)));
  at::Tensor norm = at::empty({}, at::TensorOptions(dtype).device(on.device()));
  launch_norm(Launch{on}, sent.view, p, of_norms, static_cast<NormPart*>(parts.mutable_data_ptr()),
              dtype == at::kDouble, static_cast<char*>(norm.mutable_data_ptr()));
  return norm;
}

// The norm of all, on the first CUDA device.
at::Tensor norm_of_list(const char* op, at::TensorList tensors, double p, bool of_norms) {
  if (all_ordinary(tensors)) return norm_one_device(op, tensors, p, of_norms, norm_dtype(tensors));
  check_numbers(op, tensors);
  const at::ScalarType dtype = norm_dtype(tensors);
  if (on_one_device(tensors)) return norm_one_device(op, in_any_order(tensors), p, of_norms, dtype);
  const at::Device device = first_device(tensors);
  std::vector<at::Tensor> norms;
  for (const DeviceGroup& group : groups_of(op, "tensors", tensors)) {
    const at::Tensor norm = group.device.is_cpu() ? cpu::total_norm(op, group.tensors, p, of_norms)
                                                  : norm_one_device(op, in_any_order(group.tensors),
                                                                    p, of_norms, at::kDouble);
    norms.push_back(brought(norm.to(at::kDouble), device));
  }
  const at::Tensor all = at::stack(norms);
  const at::Tensor norm = p == 0 ? all.sum() : norm_one_device(op, {all}, p, false, at::kDouble);
  return norm.to(dtype);
}

at::Tensor total_norm(at::TensorList tensors, double p) {
  check_order("total_norm", p);
  return norm_of_list("total_norm", tensors, p, false);
}

void scale_one_device(at::TensorList grads, const at::Tensor& norm, double max_norm) {
  const OnDevice on(grads[0].device());
  std::vector<at::Tensor> views = in_any_order(grads);
  if (auto once = each_byte_once("clip_grad_norm_", views)) views = *std::move(once);
  DeviceTable table("clip_grad_norm_", views, kNormChunk);
  const SentTable sent = send_table(on, table);
  launch_scale(Launch{on}, sent.view, static_cast<const char*>(norm.const_data_ptr()),
               norm.scalar_type() == at::kDouble, max_norm);
  for (const at::Tensor& grad : grads) {
    if (!grad.is_inference()) grad.unsafeGetTensorImpl()->bump_version();
  }
}

// The place of the first tensor with a NaN or an infinity, -1 if none has one. Waits.
int64_t first_nonfinite(at::TensorList tensors) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::TensorList one = tensors.slice(i, 1);
    const at::Tensor norm =
        tensors[i].is_cpu()
            ? cpu::total_norm("clip_grad_norm_", one, INFINITY, false)
            : norm_one_device("clip_grad_norm_", in_any_order(one), INFINITY, false, at::kDouble);
    const auto largest = norm.item<double>();
    if (!std::isfinite(largest)) return static_cast<int64_t>(i);
  }
  return -1;
}

at::Tensor clip_grad_norm_(at::TensorList grads, double max_norm, double norm_type,
                           bool error_if_nonfinite) {
  check_order("clip_grad_norm_", norm_type);
  if (!all_ordinary(grads)) check_numbers("clip_grad_norm_", grads);
  check_clippable(grads);
  const at::Tensor norm = norm_of_list("clip_grad_norm_", grads, norm_type, true);
  if (error_if_nonfinite && !std::isfinite(norm.item<double>()))
    refuse_nonfinite_norm(norm_type, first_nonfinite(grads));
  if (on_one_device(grads)) {
    scale_one_device(grads, norm, max_norm);
    return norm;
  }
  for (const DeviceGroup& group : groups_of("clip_grad_norm_", "tensors", grads)) {
    const at::Tensor there = brought(norm, group.device);  // waits where gradients are on the CPU
    if (group.device.is_cpu()) {
      cpu::clip_to_norm(group.tensors, there, max_norm);
    } else {
      scale_one_device(group.tensors, there, max_norm);
    }
  }
  return norm;
}

}  // namespace
}  // namespace pyparam::cuda

TORCH_LIBRARY_IMPL(pyparam, CUDA, m) {
  m.impl("total_norm", &pyparam::cuda::total_norm);
  m.impl("clip_grad_norm_", &pyparam::cuda::clip_grad_norm_);
}
