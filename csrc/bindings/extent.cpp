// What the Python verbs ask before they read or write a tensor through PyTorch, which does not.
#include "kernels/extent.h"

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <optional>
#include <string>

#include "bindings/given.h"

namespace py = pybind11;

namespace pyparam {

void bind_extent(py::module_& m) {
  m.def(
      "extent_error",
      [](const Given& given) -> std::optional<std::string> {
        if (has_extent(given.tensor)) return std::nullopt;
        return extent_words(given.tensor);
      },
      py::arg("tensor"));
}

}  // namespace pyparam
