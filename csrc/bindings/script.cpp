#include "walk/script.h"
#include "bindings/held_table.h"

namespace pyparam {

void bind_script(pybind11::module_& m) {
  namespace py = pybind11;
  m.def(
      "walk_script",
      [](const torch::jit::Module& module, bool buffers, bool remove_duplicate) {
        return HeldTable(walk::walk_script(module, buffers, remove_duplicate));
      },
      py::arg("module"), py::arg("buffers"), py::arg("remove_duplicate"));
}

}  // namespace pyparam
