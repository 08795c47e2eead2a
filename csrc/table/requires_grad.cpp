#include "table/requires_grad.h"

#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/variable.h>

namespace pyparam {

void set_requires_grad(const ParamTable& table, bool flag) {
  for (size_t i = 0; i < table.size(); ++i) {
    const at::Tensor& tensor = table.tensors[i];
    TORCH_CHECK_VALUE(tensor.requires_grad() == flag || tensor.is_leaf(),
                      "requires_grad_: tensors[", i,
                      "] is no leaf but computed from others, and requires what they require");
    if (!flag) continue;
    TORCH_CHECK_VALUE(torch::autograd::isDifferentiableType(tensor.scalar_type()),
                      "requires_grad_: tensors[", i, "] has dtype ", tensor.scalar_type(),
                      "; only floating-point and complex tensors can require gradients");
    TORCH_CHECK_VALUE(!tensor.is_inference() || c10::InferenceMode::is_enabled(),
                      "requires_grad_: tensors[", i,
                      "] is an inference tensor, which cannot require gradients");
  }
  for (const at::Tensor& tensor : table.tensors) {
    if (tensor.requires_grad() != flag) tensor.set_requires_grad(flag);
  }
}

}  // namespace pyparam
