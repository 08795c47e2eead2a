// What follows from where tensors lie for a copy between many tensors and one vector. Knows no
// device.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "kernels/alike.h"
#include "kernels/spans.h"

namespace pyparam {

// Strided, with memory of its own and known sizes, holding its own values: what a kernel can take
// by address.
bool is_plain_memory(const at::Tensor& tensor);
bool all_plain_memory(at::TensorList tensors);

// Refuses an output that a source lies in, unless the source already is what it will hold.
void require_apart(at::TensorList tensors, const at::Tensor& out);

// Refuses tensors whose elements share memory, and inference tensors outside inference mode.
void require_writable(const char* verb, at::TensorList tensors);

// Whether a write to some tensor would change elements of the vector that are still to be read.
bool reads_what_it_writes(at::TensorList tensors, const at::Tensor& vector);

// The memory of tensors that are to be scaled in place, as tensors no two of which share a byte;
// nothing where the given ones are so already. Refuses memory that is in two of them under
// different dtypes (or at elements cut by one another), of which no element is the same in both.
std::optional<std::vector<at::Tensor>> each_byte_once(const char* verb, at::TensorList tensors);

// Cuts a list, in order, so that no two tensors of a piece share a byte: written one piece after
// the other, of bytes that two tensors share, the later tensor's stay.
std::vector<at::TensorList> pieces_apart(at::TensorList tensors);

}  // namespace pyparam
