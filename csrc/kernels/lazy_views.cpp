// Lazily conjugated and negated tensors, as ops that read get them. PyTorch's own fallback makes
// plain tensors of them without asking whether their memory is there: it would read past the end.
#include <ATen/core/Tensor.h>
#include <ATen/core/stack.h>
#include <ATen/ops/resolve_conj.h>
#include <ATen/ops/resolve_neg.h>
#include <torch/library.h>

#include "kernels/extent.h"

namespace pyparam {
namespace {

using c10::DispatchKey;
using c10::DispatchKeySet;

void resolve_lists(const c10::OperatorHandle& op, DispatchKeySet keys, torch::jit::Stack* stack) {
  const auto& arguments = op.schema().arguments();
  for (size_t k = 0; k < arguments.size(); ++k) {
    c10::IValue& value = torch::jit::peek(*stack, k, arguments.size());
    if (!value.isTensorList()) continue;
    std::vector<at::Tensor> tensors = value.toTensorVector();
    for (size_t i = 0; i < tensors.size(); ++i) {
      at::Tensor& tensor = tensors[i];
      if (!tensor.defined() || !(tensor.is_conj() || tensor.is_neg())) continue;
      require_extent(tensor, [&] {
        const std::string& verb = op.schema().name();
        return c10::str(verb.substr(verb.find("::") + 2), ": ", arguments[k].name(), "[", i, "]");
      });
      tensor = tensor.resolve_conj().resolve_neg();
    }
    value = std::move(tensors);
  }
  const DispatchKeySet below =
      keys & DispatchKeySet(DispatchKeySet::FULL_AFTER, DispatchKey::Negative);
  op.redispatchBoxed(below.remove(DispatchKey::Conjugate), stack);
}

void define(torch::Library& m) {
  for (const char* op : {"fingerprint", "compare", "measure", "measure_histogram", "total_norm",
                         "flatten", "flatten.out"})
    m.impl(op, torch::CppFunction::makeFromBoxedFunction<&resolve_lists>());
}

}  // namespace
}  // namespace pyparam

TORCH_LIBRARY_IMPL(pyparam, Conjugate, m) { pyparam::define(m); }
TORCH_LIBRARY_IMPL(pyparam, Negative, m) { pyparam::define(m); }
