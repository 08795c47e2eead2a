#include "bindings/operands.h"

#include <torch/csrc/utils/pybind.h>

#include <string>

#include "article.h"
#include "kernels/operands.h"

namespace pyparam {
namespace {

namespace py = pybind11;

void refuse_wrapper(const char* verb, const char* list, size_t index, const at::Tensor& tensor) {
  const auto name = py::cast<std::string>(py::type::of(py::cast(tensor)).attr("__name__"));
  const char* hint = "take the tensors that it wraps";
  if (name == "DTensor") hint = "full_tensor() gathers it, to_local() gives this rank's part";
  if (name == "FakeTensor") hint = "it has no data";
  TORCH_CHECK_TYPE(false, verb, ": ", list, "[", index, "] is ", with_article(name),
                   ", which answers through __torch_dispatch__; expected an ordinary tensor (",
                   hint, ")");
}

}  // namespace

void check_initialized(const char* verb, const char* list, at::TensorList tensors,
                       const std::vector<size_t>& empty) {
  if (empty.empty()) return;
  // To C++ an UninitializedParameter is an empty tensor.
  const auto uninitialized =
      py::module_::import("torch.nn.parameter").attr("UninitializedTensorMixin");
  for (const size_t i : empty) {
    TORCH_CHECK_VALUE(!py::isinstance(py::cast(tensors[i]), uninitialized), verb, ": ", list, "[",
                      i, "] is not initialised yet (a lazy module's); run the module once first");
  }
}

void check_operands(const char* verb, const char* list, at::TensorList tensors) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    prefetch_ahead(tensors, i);
    const at::Tensor& tensor = tensors[i];
    if (tensor.key_set().has(c10::DispatchKey::Python)) refuse_wrapper(verb, list, i, tensor);
    check_strided(verb, list, static_cast<int64_t>(i), tensor);
    if (tensor.numel() == 0) check_initialized(verb, list, tensors, {i});
    TORCH_CHECK_VALUE(!tensor.is_meta(), verb, ": ", list, "[", i,
                      "] is on the meta device and has no data; load or initialise it first");
  }
}

}  // namespace pyparam
