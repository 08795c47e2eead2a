// Autograd of the flatten family, for every device: the gradient of flatten is unflatten.
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include "kernels/flatten.h"

namespace pyparam {
namespace {

// What backward needs of the tensors: no tensor, only their shapes and dtypes.
struct Parts : torch::CustomClassHolder {
  struct Part {
    c10::SymInt numel;
    size_t dims;
    at::ScalarType dtype;
  };
  std::vector<c10::SymInt> sizes;  // of all tensors, one after the other
  std::vector<Part> parts;

  explicit Parts(at::TensorList tensors) {
    parts.reserve(tensors.size());
    for (const at::Tensor& tensor : tensors) {
      const auto shape = tensor.sym_sizes();
      sizes.insert(sizes.end(), shape.begin(), shape.end());
      parts.push_back({tensor.sym_numel(), shape.size(), tensor.scalar_type()});
    }
  }
};

// Backward gives each tensor its part of the vector's gradient, in its own shape and dtype. It is
// made of torch's operators, so the gradient of the gradient comes with it.
struct Flatten : torch::autograd::Function<Flatten> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::TensorList tensors,
                            std::optional<at::ScalarType> dtype) {
    context->saved_data["parts"] = c10::IValue::make_capsule(c10::make_intrusive<Parts>(tensors));
    at::AutoDispatchBelowAutograd guard;
    return flatten(tensors, dtype);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto capsule = context->saved_data["parts"].toCapsule();
    const auto& saved = static_cast<const Parts&>(*capsule);
    torch::autograd::variable_list out(saved.parts.size() + 1);  // and none for the dtype
    const at::Tensor& grad = grads[0];
    if (!grad.defined()) return out;
    c10::SymInt offset = 0;
    const c10::SymInt* shape = saved.sizes.data();
    for (size_t i = 0; i < saved.parts.size(); ++i) {
      const Parts::Part& part = saved.parts[i];
      if (context->needs_input_grad(i)) {
        out[i] = grad.narrow_symint(0, offset, part.numel)
                     .view_symint(c10::SymIntArrayRef(shape, part.dims));
        if (part.dtype != grad.scalar_type()) out[i] = out[i].to(part.dtype);
      }
      offset = offset + part.numel;
      shape += part.dims;
    }
    return out;
  }
};

// Function transforms (vmap among them) and forward-mode derivatives know torch's operators, not
// ours. A transform that is on has its key among the thread's own; that functorch has state in this
// thread only says that somebody asked for it once.
bool transformed(at::TensorList tensors) {
  using c10::DispatchKey;
  if (c10::impl::tls_is_dispatch_key_included(DispatchKey::FuncTorchDynamicLayerFrontMode) ||
      c10::impl::tls_is_dispatch_key_included(DispatchKey::FuncTorchDynamicLayerBackMode))
    return true;
  if (!c10::AutogradState::get_tls_state().get_fw_grad_mode()) return false;
  for (const at::Tensor& tensor : tensors) {
    if (tensor._fw_grad(/*level=*/0).defined()) return true;
  }
  return false;
}

at::Tensor flatten_autograd(at::TensorList tensors, std::optional<at::ScalarType> dtype) {
  if (!tensors.empty() && transformed(tensors)) return flatten_anywhere(tensors, dtype);
  const at::ScalarType to = flat_dtype(Subject{tensors}, dtype);
  if (torch::autograd::isDifferentiableType(to) &&
      torch::autograd::compute_requires_grad(tensors)) {
    return Flatten::apply(tensors, dtype);
  }
  at::AutoDispatchBelowAutograd guard;
  return flatten(tensors, dtype);
}

void refuse_recording(at::TensorList tensors, const char* what) {
  TORCH_CHECK(!torch::autograd::compute_requires_grad(tensors), what);
}

void flatten_out_autograd(at::TensorList tensors, std::optional<at::ScalarType> dtype,
                          at::Tensor& out) {
  refuse_recording(tensors,
                   "flatten: with out= nothing is recorded for autograd, but a tensor requires "
                   "grad; call it under "
                   "torch.no_grad()");
  TORCH_CHECK(!(c10::GradMode::is_enabled() && out.requires_grad()),
              "flatten: out requires grad; call it under torch.no_grad()");
  at::AutoDispatchBelowAutograd guard;
  flatten_out(tensors, dtype, out);
}

// A write as optimizers write: leaves that require grad take it, nothing is recorded, versions go
// up. What recording would be needed for is refused.
void scatter_autograd(at::TensorList tensors, const at::Tensor& vector) {
  if (c10::GradMode::is_enabled()) {
    TORCH_CHECK(
        !vector.requires_grad(),
        "scatter_: the vector requires grad, but the write is not recorded for autograd; pass "
        "vector.detach(), or use unflatten and torch.func.functional_call to differentiate");
    for (size_t i = 0; i < tensors.size(); ++i) {
      TORCH_CHECK(!tensors[i].defined() || tensors[i].is_leaf(), "scatter_: tensors[", i,
                  "] is the result of a recorded operation, and the write would not be recorded; "
                  "call it under "
                  "torch.no_grad()");
    }
  }
  at::AutoDispatchBelowAutograd guard;
  scatter_(tensors, vector);
}

}  // namespace
}  // namespace pyparam

TORCH_LIBRARY_IMPL(pyparam, Autograd, m) {
  m.impl("flatten", &pyparam::flatten_autograd);
  m.impl("flatten.out", &pyparam::flatten_out_autograd);
  m.impl("scatter_", &pyparam::scatter_autograd);
}

TORCH_LIBRARY_IMPL(pyparam, FuncTorchBatched, m) { m.impl("flatten", &pyparam::flatten_anywhere); }
