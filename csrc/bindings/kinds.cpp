// Bindings of what is found in a table's names and layouts: definitions only.
#include <torch/csrc/utils/pybind.h>

#include "bindings/column.h"
#include "bindings/held_table.h"
#include "bindings/name.h"
#include "table/layout_kinds.h"
#include "table/name_tree.h"

namespace py = pybind11;

namespace pyparam {

void bind_kinds(py::module_& m) {
  py::class_<NameTree>(m, "NameTree")
      .def_property_readonly("parents", [](const NameTree& t) { return column(t.parents); })
      .def_property_readonly("keys", [](const NameTree& t) { return column(t.keys); })
      .def_property_readonly("owners", [](const NameTree& t) { return column(t.owners); })
      .def_property_readonly("attributes", [](const NameTree& t) { return column(t.attributes); })
      .def_property_readonly("strings",
                             [](const NameTree& t) {
                               py::list out;
                               for (const std::string& text : t.strings) out.append(str_of(text));
                               return out;
                             })
      .def(
          "alike",
          [](const NameTree& t, const std::vector<int64_t>& classes,
             const std::vector<bool>& bare) { return column(alike_names(t, classes, bare)); },
          py::arg("classes"), py::arg("bare"));
  m.def(
      "name_tree", [](const ParamTable& table) { return name_tree(table.names); }, py::arg("table"),
      py::call_guard<py::gil_scoped_release>());
  m.def(
      "name_tree",
      [](const py::list& names) {
        py::detail::make_caster<Name> name;
        return name_tree(names.size(), [&](size_t i) -> std::string_view {
          require_name("name_tree", names[i], name);
          return static_cast<Name&>(name).text;
        });
      },
      py::arg("names"));

  py::class_<LayoutKinds>(m, "LayoutKinds")
      .def_property_readonly("kind_of", [](const LayoutKinds& k) { return column(k.kind_of); })
      .def_readonly("first", &LayoutKinds::first)
      .def_readonly("odd", &LayoutKinds::odd);
  m.def(
      "layout_kinds", [](const ParamTable& table) { return layout_kinds(table.tensors); },
      py::arg("table"));
}

}  // namespace pyparam
