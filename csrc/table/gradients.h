// The gradients of a table's tensors.
#pragma once

#include <cstdint>
#include <vector>

#include "table/param_table.h"
#include "table/prefetch.h"

namespace pyparam {

// The gradient, undefined where there is none. Asks leaves only: others keep none that is theirs.
inline const at::Tensor& gradient_of(const at::Tensor& tensor) {
  static const at::Tensor none;
  if (!tensor.defined()) return none;
  if (tensor.requires_grad() && !tensor.is_leaf() && !tensor.retains_grad()) return none;
  return tensor.grad();
}

// Those that are there, in table order, and the places in the table of those that are not.
struct Gradients {
  std::vector<at::Tensor> present;
  std::vector<int64_t> missing;
};
inline Gradients gradients(const ParamTable& table) {
  Gradients out;
  out.present.reserve(table.size());
  for (size_t i = 0; i < table.size(); ++i) {
    if (i + kAheadOfTensors < table.size()) prefetch(table.tensors[i + kAheadOfTensors]);
    const at::Tensor& grad = gradient_of(table.tensors[i]);
    if (grad.defined()) {
      out.present.push_back(grad);
    } else {
      out.missing.push_back(static_cast<int64_t>(i));
    }
  }
  return out;
}

}  // namespace pyparam
