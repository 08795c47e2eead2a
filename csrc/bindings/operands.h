#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

namespace pyparam {

// Raises for the first tensor whose bytes an op would not see: a tensor subclass that answers
// through Python, one on the meta device, a lazy module's parameter, one that is not strided.
// `list` is the argument's name
// ("tensors"). The caller must hold the GIL.
void check_operands(const char* verb, const char* list, at::TensorList tensors);

// The part of it that takes Python, of tensors without elements at these places: raises for a lazy
// module's parameter. The caller must hold the GIL.
void check_initialized(const char* verb, const char* list, at::TensorList tensors,
                       const std::vector<size_t>& empty);

}  // namespace pyparam
