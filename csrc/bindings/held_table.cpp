#include "bindings/held_table.h"

#include <string>
#include <vector>

#include "bindings/name.h"
#include "kernels/interrupt.h"

namespace py = pybind11;

namespace pyparam {
namespace {

// A list of its own, which nobody else can change.
py::list list_of(const py::object& items) {
  PyObject* made = PySequence_List(items.ptr());
  if (made == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::list>(made);
}

HeldTable table_from_columns(const py::object& given, const py::object& given_tensors) {
  const py::list listed = list_of(given);
  py::list tensors = list_of(given_tensors);
  if (listed.size() != tensors.size())
    throw py::value_error("ParamTable: names and tensors differ in length");
  NameColumn names = name_column("ParamTable", listed);
  for (size_t i = 0; i < tensors.size(); ++i) {
    tensor_in(PyList_GET_ITEM(tensors.ptr(), static_cast<Py_ssize_t>(i)),
              [&] { return "ParamTable: '" + names[i] + "'"; });
  }
  return {std::move(names), std::move(tensors)};
}

py::list names_of(const HeldTable& table) { return strings_of(table.names()); }

py::object tensors_of(const HeldTable& table) {
  if (!table.objects()) return py::cast(table.native().tensors);
  return list_of(table.objects());
}

size_t checked(const HeldTable& table, const char* method, size_t i) {
  if (i >= table.names().size())
    throw py::index_error("ParamTable." + std::string(method) + ": index out of range");
  return i;
}

py::object tensor_of(const HeldTable& table, size_t i) {
  checked(table, "tensor", i);
  if (!table.objects()) return py::cast(table.native().tensors[i]);
  return py::reinterpret_borrow<py::object>(
      PyList_GET_ITEM(table.objects().ptr(), static_cast<Py_ssize_t>(i)));
}

// The rows at `indices`, in that order.
HeldTable take(const HeldTable& table, const std::vector<size_t>& indices) {
  NameColumn names;
  names.reserve(indices.size());
  for (const size_t i : indices) names.append(table.names()[checked(table, "take", i)]);
  if (table.objects()) {
    py::list objects(indices.size());
    for (size_t to = 0; to < indices.size(); ++to) objects[to] = tensor_of(table, indices[to]);
    return {std::move(names), std::move(objects)};
  }
  ParamTable taken{std::move(names), {}};
  taken.tensors.reserve(indices.size());
  for (const size_t i : indices) taken.tensors.push_back(table.native().tensors[i]);
  return HeldTable(std::move(taken));
}

std::vector<Name> attributes_of(const HeldTable& table) {
  std::vector<Name> out;
  const size_t size = table.names().size();
  out.reserve(size);
  for (size_t i = 0; i < size; ++i) out.push_back({std::string(table.names().attribute(i))});
  return out;
}

std::vector<Name> owner_names_of(const HeldTable& table) {
  std::vector<Name> out;
  const size_t size = table.names().size();
  out.reserve(size);
  for (size_t i = 0; i < size; ++i) out.push_back({table.names().owner(i)});
  return out;
}

// How many hold each tensor during a call, its object among them. With `asks`, once a long pass has
// asked for signals.
std::vector<size_t> holders(const ParamTable& table, bool asks) {
  if (asks) {
    const py::gil_scoped_release without_gil;
    ask_caller()();
  }
  std::vector<size_t> out;
  for (const at::Tensor& tensor : table.tensors) out.push_back(tensor.use_count());
  return out;
}

// A table holds objects that may refer to it.
void let_collector_in(PyHeapTypeObject* made) {
  PyTypeObject& type = made->ht_type;
  type.tp_flags |= Py_TPFLAGS_HAVE_GC;
  type.tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (py::detail::is_holder_constructed(self))
      Py_VISIT(py::cast<HeldTable&>(py::handle(self)).objects().ptr());
    return 0;
  };
  type.tp_clear = [](PyObject* self) {
    if (!py::detail::is_holder_constructed(self)) return 0;
    HeldTable dropped((ParamTable()));
    std::swap(py::cast<HeldTable&>(py::handle(self)), dropped);
    return 0;
  };
}

}  // namespace

void bind_tables(py::module_& m) {
  py::class_<HeldTable>(m, "ParamTable", py::custom_type_setup(&let_collector_in))
      .def(py::init(&table_from_columns), py::arg("names"), py::arg("tensors"))
      .def("__len__", [](const HeldTable& table) { return table.names().size(); })
      .def_property_readonly("names", &names_of)
      // A copy, which shares the names: a reference would keep the table, and so its tensors,
      // alive.
      .def_property_readonly("name_column",
                             [](const HeldTable& table) { return NameColumn(table.names()); })
      .def_property_readonly("tensors", &tensors_of)
      .def_property_readonly("attributes", &attributes_of)
      .def_property_readonly("owner_names", &owner_names_of)
      .def("tensor", &tensor_of, py::arg("index"))
      .def("take", &take, py::arg("indices"));
  m.def("holders", &holders, py::arg("table"), py::arg("asks") = false);
}

}  // namespace pyparam
