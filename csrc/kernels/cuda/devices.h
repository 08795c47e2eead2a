// Lists of tensors on several devices.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace pyparam::cuda {

// The tensors of one device, and their places in the list.
struct DeviceGroup {
  at::Device device;
  std::vector<at::Tensor> tensors;
  std::vector<int64_t> places;
};

// One group a device, in the order in which devices first appear. Raises for a device that is
// neither a CPU nor a CUDA one, and for a list on both while a graph is captured; `list` is the
// argument's name.
std::vector<DeviceGroup> groups_of(const char* verb, const char* list, at::TensorList tensors);

// Raises while a CUDA graph is captured: for lists on the CPU and on CUDA devices, of which a graph
// could not replay the CPU's part.
void refuse_capture(const char* verb);

// Raises, as the CPU's verbs do, for a tensor that has no readable numbers.
void check_numbers(const char* op, at::TensorList tensors);

// Whether all tensors are on one CUDA device.
bool on_one_device(at::TensorList tensors);

// Whether all are ordinary numbers in row-major order on one CUDA device, so that nothing has to be
// checked or brought into order: one quick look at each.
bool all_ordinary(at::TensorList tensors);

// The CUDA device that results of a list on several devices go to: the first in the list.
at::Device first_device(at::TensorList tensors);

// There, without waiting for either device, if it is not a copy from a device to the CPU.
at::Tensor brought(const at::Tensor& tensor, at::Device device);
// Places as an index on a device.
at::Tensor index_on(const std::vector<int64_t>& places, at::Device device);

// The tensors, and in place of those that fill their memory densely in another order than row-major
// one-dimensional views of that memory: for verbs that do not care for order.
std::vector<at::Tensor> in_any_order(at::TensorList tensors);

}  // namespace pyparam::cuda
