#include "bindings/share.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "table/param_table.h"
#include "table/sharing.h"

namespace py = pybind11;

namespace pyparam {

namespace {

at::Tensor column(const std::vector<int64_t>& values) {
  at::Tensor out = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), out.mutable_data_ptr<int64_t>());
  return out;
}

Sharing sharing_of_table(const ParamTable& table, const std::vector<Held>& held) {
  SharingSearch search(table.tensors, held);
  {
    py::gil_scoped_release released;
    search.search();
  }
  return search.result();
}

// The groups, each as its members: (name, tensor, object, layout, offset).
py::list members_of(const Sharing& sharing, const ParamTable& table) {
  py::list out;
  for (const auto& group : sharing.groups()) {
    py::list members;
    for (int64_t i : group) {
      members.append(py::make_tuple(py::str(table.names[i]), table.tensors[i], sharing.object[i],
                                    sharing.layout[i], sharing.offset[i]));
    }
    out.append(py::make_tuple(sharing.vague[group.front()] != 0, members));
  }
  return out;
}

}  // namespace

void bind_share(py::module_& m) {
  py::class_<Sharing>(m, "Sharing")
      .def("__len__", &Sharing::size)
      .def_property_readonly("group", [](const Sharing& s) { return column(s.memory); })
      .def_property_readonly("bytes", [](const Sharing& s) { return column(s.bytes); })
      .def_property_readonly("total_bytes", &Sharing::total_bytes)
      .def("members", &members_of, py::arg("table"));
  m.def("sharing", &sharing_of_table, py::arg("table"), py::arg("held") = std::vector<Held>());
  m.def(
      "python_tensors", [](const ParamTable& table) { return python_tensors(table.tensors); },
      py::arg("table"));
}

}  // namespace pyparam
