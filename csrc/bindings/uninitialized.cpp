#include "bindings/uninitialized.h"

#include <torch/csrc/utils/pybind.h>

namespace py = pybind11;

namespace pyparam {

void refuse_uninitialized(const char* verb, const Subject& subject,
                          const std::vector<size_t>& empties) {
  py::gil_scoped_acquire gil;
  const py::object kind =
      py::module_::import("torch.nn.parameter").attr("UninitializedTensorMixin");
  for (const size_t i : empties) {
    TORCH_CHECK_TYPE(
        !py::isinstance(py::cast(subject.tensors[i]), kind), verb, ": ", subject.owner(i),
        " is uninitialized (a lazy module's parameter); expected one with a shape, which a first "
        "forward pass gives");
  }
}

}  // namespace pyparam
