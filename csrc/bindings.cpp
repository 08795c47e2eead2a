// The pybind11 module: definitions only.
#include <torch/csrc/utils/pybind.h>

#include "bindings/walk.h"
#include "table/param_table.h"

namespace py = pybind11;

using pyparam::ParamTable;

namespace pyparam {
void bind_init(py::module_&);
}

namespace {

ParamTable table_from_columns(const std::vector<std::string>& names, std::vector<at::Tensor> tensors) {
  if (names.size() != tensors.size()) throw py::value_error("ParamTable: names and tensors differ in length");
  ParamTable table;
  table.names.reserve(names.size());
  for (const auto& name : names) table.names.append(name);
  table.tensors = std::move(tensors);
  return table;
}

py::list names_of(const ParamTable& table) {
  py::list out(table.size());
  std::string name;
  for (size_t i = 0; i < table.size(); ++i) out[i] = py::str(table.names[i]);
  return out;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  pyparam::bind_walk(m);

  py::class_<ParamTable>(m, "ParamTable")
      .def(py::init(&table_from_columns), py::arg("names"), py::arg("tensors"))
      .def("__len__", &ParamTable::size)
      .def_property_readonly("names", &names_of)
      .def_property_readonly("tensors", [](const ParamTable& t) { return t.tensors; });

  pyparam::bind_init(m);
}
