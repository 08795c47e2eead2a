#include "bindings/share.h"

#include "bindings/column.h"
#include "bindings/given.h"
#include "bindings/held_table.h"
#include "bindings/name.h"
#include "table/ties.h"

namespace py = pybind11;

namespace pyparam {

namespace {

TieSets ties_of_table(const ParamTable& table, const std::vector<Held>& held) {
  TieSearch search(table.tensors, held);
  // What a subclass raised when it was asked for its sizes: it was taken as an object alone.
  PyErr_Clear();
  {
    py::gil_scoped_release released;
    search.search();
  }
  return search.result();
}

// The groups, each as its members: (name, tensor, object, layout, offset).
py::list members_of(const TieSets& sets, const ParamTable& table) {
  py::list out;
  for (const auto& group : sets.groups()) {
    py::list members;
    for (int64_t i : group) {
      members.append(py::make_tuple(str_of(table.names[i]), table.tensors[i], sets.object[i],
                                    sets.layout[i], sets.offset[i]));
    }
    out.append(py::make_tuple(sets.vague[group.front()] != 0, members));
  }
  return out;
}

}  // namespace

bool share_memory(const std::vector<at::Tensor>& tensors) {
  TieSearch search(tensors, {});
  PyErr_Clear();  // as in ties_of_table
  {
    const py::gil_scoped_release released;
    search.search();
  }
  return !search.result().apart();
}

void bind_share(py::module_& m) {
  py::class_<TieSets>(m, "TieSets")
      .def("__len__", &TieSets::size)
      .def_property_readonly("apart", &TieSets::apart)
      .def_property_readonly("group", [](const TieSets& s) { return column(s.memory); })
      .def_property_readonly("layout", [](const TieSets& s) { return column(s.layout); })
      .def_property_readonly("bytes", [](const TieSets& s) { return column(s.bytes); })
      .def_property_readonly("total_bytes", &TieSets::total_bytes)
      .def("members", &members_of, py::arg("table"));
  m.def("tie_sets", &ties_of_table, py::arg("table"), py::arg("held") = std::vector<Held>());
  m.def(
      "share_memory",
      [](const GivenList& some, const GivenList& others) {
        std::vector<at::Tensor> all = some.tensors;
        all.insert(all.end(), others.tensors.begin(), others.tensors.end());
        return share_memory(all);
      },
      py::arg("some"), py::arg("others"));
  m.def(
      "python_tensors", [](const ParamTable& table) { return python_tensors(table.tensors); },
      py::arg("table"));
}

}  // namespace pyparam
