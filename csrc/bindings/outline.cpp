// Bindings of the outline of a model: definitions only.
#include "bindings/outline.h"
#include "bindings/held_table.h"
#include "bindings/name.h"

#include "table/outline.h"
#include "walk/outline_module.h"

namespace py = pybind11;

namespace pyparam {

namespace {

void check_entry(const Outline& outline, int64_t entry) {
  if (entry < 0 || entry >= static_cast<int64_t>(outline.entries().size()))
    throw py::index_error("no such entry");
}

}  // namespace

void bind_outline(py::module_& m) {
  py::class_<Holding>(m, "Holding")
      .def_readonly("names", &Holding::names)
      .def_readonly("values", &Holding::values)
      .def_readonly("tensors", &Holding::tensors)
      .def_readonly("unique", &Holding::unique)
      .def_readonly("bytes", &Holding::bytes)
      .def_readonly("trainable", &Holding::trainable);

  py::class_<Outline>(m, "Outline")
      .def("__len__", &Outline::size)
      .def("entry_count", [](const Outline& o) { return o.entries().size(); })
      .def(
          "key", [](const Outline& o, int64_t node) { return str_of(o.text(o.node(node).name)); },
          py::arg("node"))
      .def(
          "label",
          [](const Outline& o, int64_t node) { return str_of(o.text(o.node(node).label)); },
          py::arg("node"))
      .def(
          "name", [](const Outline& o, int64_t node) { return str_of(o.name_of_node(node)); },
          py::arg("node"))
      .def(
          "modules", [](const Outline& o, int64_t node) { return o.node(node).end - node; },
          py::arg("node"))
      .def(
          "repeats", [](const Outline& o, int64_t node) { return o.node(node).repeats; },
          py::arg("node"))
      .def(
          "own_entries",
          [](const Outline& o, int64_t node) {
            return std::make_pair(o.node(node).first_entry, o.node(node).last_entry);
          },
          py::arg("node"))
      .def("children", &Outline::children, py::arg("node"))
      .def(
          "series",
          [](const Outline& o, int64_t first, int64_t last) {
            std::vector<py::str> keys;
            for (int64_t i = first; i <= last; i = o.node(i).end)
              keys.push_back(str_of(o.text(o.node(i).name)));
            return keys;
          },
          py::arg("first"), py::arg("last"))
      .def(
          "groups",
          [](const Outline& o, int64_t node) {
            std::vector<std::tuple<int64_t, int64_t, int64_t, bool>> out;
            for (const OutlineGroup& g : o.groups(node))
              out.emplace_back(g.first, g.last, g.count, g.same_module);
            return out;
          },
          py::arg("node"))
      .def("holding", &Outline::holding, py::arg("node"), py::arg("buffers"))
      .def(
          "entry_key",
          [](const Outline& o, int64_t entry) {
            check_entry(o, entry);
            return str_of(o.text(o.entries()[static_cast<size_t>(entry)].name));
          },
          py::arg("entry"))
      .def(
          "entry_name",
          [](const Outline& o, int64_t entry) {
            check_entry(o, entry);
            return str_of(o.name_of_entry(entry));
          },
          py::arg("entry"))
      .def(
          "entry_is_buffer",
          [](const Outline& o, int64_t entry) {
            check_entry(o, entry);
            return o.entries()[static_cast<size_t>(entry)].buffer;
          },
          py::arg("entry"))
      .def(
          "entry_tensor",
          [](const Outline& o, int64_t entry) {
            check_entry(o, entry);
            return o.tensors()[static_cast<size_t>(entry)];
          },
          py::arg("entry"))
      .def(
          "entry_cluster",
          [](const Outline& o, int64_t entry) {
            check_entry(o, entry);
            return o.sharing().cluster[static_cast<size_t>(entry)];
          },
          py::arg("entry"))
      .def("clusters", [](const Outline& o) { return o.sharing().members; })
      .def(
          "child",
          [](const Outline& o, int64_t node, const Name& name) { return o.child(node, name.text); },
          py::arg("node"), py::arg("name"))
      .def(
          "own_entry",
          [](const Outline& o, int64_t node, const Name& name) {
            return o.own_entry(node, name.text);
          },
          py::arg("node"), py::arg("name"))
      .def("restricted", &Outline::restricted, py::arg("keep"), py::arg("root"));

  m.def(
      "outline_of_module",
      [](const py::object& module, const py::object& type_label, const py::object& module_label) {
        try {
          return walk::outline_of_module(module.ptr(), type_label.ptr(), module_label.ptr());
        } catch (const walk::PythonError&) {
          throw py::error_already_set();
        }
      },
      py::arg("module"), py::arg("type_label"), py::arg("module_label"));
  m.def("outline_of_table", &outline_of_table, py::arg("table"), py::arg("buffer"));
}

}  // namespace pyparam
