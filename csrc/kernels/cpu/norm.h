// What total_norm and clip_grad_norm_ need on every device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/norm.h"

namespace pyparam {

// Raises unless p is an order of a norm.
void check_order(const char* op, double p);

// The dtype all tensors promote to, complex as its parts, and float32 at the least.
at::ScalarType norm_dtype(at::TensorList tensors);

// Raises for a gradient that cannot be scaled in place.
void check_clippable(at::TensorList grads);

// Raises RuntimeError, as PyTorch does. `first` is the place of the first gradient with a NaN or an
// infinity, -1 if none has one.
[[noreturn]] void refuse_nonfinite_norm(double norm_type, int64_t first);

namespace cpu {

// The norm of CPU tensors; of order 0, with `of_norms`, the number of those that are not all zero.
at::Tensor total_norm(const char* op, at::TensorList tensors, double p, bool of_norms);
// total_norm of a list of ordinary tensors (OrdinaryReader), those of few values while the
// list is read; none where some tensor is not such.
std::optional<at::Tensor> norm_of_ordinary(at::TensorList tensors, double p);
// What each CPU tensor adds to a norm.
std::vector<NormPart> tensor_norms(const char* op, at::TensorList tensors, double p);
// Scales CPU tensors in place by what makes their norm, if it is the given one, at most max_norm.
void clip_to_norm(at::TensorList grads, const at::Tensor& norm, double max_norm);

}  // namespace cpu

}  // namespace pyparam
