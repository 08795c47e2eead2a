#pragma once

#include <ATen/core/Tensor.h>

namespace pyparam {

// Raises for the first tensor whose bytes an op would not see: a tensor subclass that answers
// through Python, one on the meta device, a lazy module's parameter, one that is not strided.
// `list` is the argument's name
// ("tensors"). The caller must hold the GIL.
void check_operands(const char* verb, const char* list, at::TensorList tensors);

}  // namespace pyparam
