// Copies of many tensors into many others, as `target.copy_(source)` does each.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace pyparam {

// Whether `target.copy_(source)` under no_grad comes to writing values, runs no Python code and is
// not refused: ordinary tensors of one shape on devices with memory, a target that may be written
// to, no complex values into real ones. The caller answers for modes and transforms.
bool copies_plainly(const at::Tensor& target, const at::Tensor& source);

// Copies sources into targets in order: where they share memory, the last one wins. Each pair must
// copy plainly. Needs no GIL. What a device raises leaves the pairs before it copied.
void copy_all(const std::vector<at::Tensor>& targets, const std::vector<at::Tensor>& sources);

// The same for lists as they come: raises TypeError or ValueError that names `tensors[i]`, with
// nothing written, for a pair that does not copy plainly. Source and target may differ in dtype and
// device.
void copy_checked(const std::vector<at::Tensor>& targets, const std::vector<at::Tensor>& sources);

}  // namespace pyparam
