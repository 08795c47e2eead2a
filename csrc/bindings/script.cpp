#include <torch/csrc/utils/pybind.h>

#include "walk/script.h"

namespace pyparam {

void bind_script(pybind11::module_& m) {
  namespace py = pybind11;
  m.def("walk_script", &walk::walk_script, py::arg("module"), py::arg("buffers"),
        py::arg("remove_duplicate"));
}

}  // namespace pyparam
