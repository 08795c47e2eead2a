// The pybind11 module: definitions only.
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "article.h"
#include "bindings/compare.h"
#include "bindings/fingerprint.h"
#include "bindings/flatten.h"
#include "bindings/given.h"
#include "bindings/interrupt.h"
#include "bindings/measure.h"
#include "bindings/name.h"
#include "bindings/outline.h"
#include "bindings/pack.h"
#include "bindings/share.h"
#include "bindings/walk.h"
#include "table/param_table.h"
#include "table/prefetch.h"

namespace py = pybind11;

using pyparam::GivenList;
using pyparam::Name;
using pyparam::ParamTable;
using pyparam::str_of;
using pyparam::tensor_in;

namespace {

ParamTable table_from_columns(const std::vector<Name>& names, const py::list& tensors) {
  if (names.size() != tensors.size())
    throw py::value_error("ParamTable: names and tensors differ in length");
  ParamTable table;
  table.names.reserve(names.size());
  table.tensors.reserve(names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    table.names.append(names[i].text);
    table.tensors.push_back(
        tensor_in(tensors[i], [&] { return "ParamTable: '" + names[i].text + "'"; }));
  }
  return table;
}

py::list names_of(const ParamTable& table) {
  py::list out(table.names.size());
  for (size_t i = 0; i < table.names.size(); ++i) out[i] = str_of(table.names[i]);
  return out;
}

// The rows at `indices`, in that order.
ParamTable take(const ParamTable& table, const std::vector<size_t>& indices) {
  ParamTable taken;
  taken.names.reserve(indices.size());
  taken.tensors.reserve(indices.size());
  for (const size_t i : indices) {
    if (i >= table.size()) throw py::index_error("ParamTable.take: index out of range");
    taken.names.append(table.names[i]);
    taken.tensors.push_back(table.tensors[i]);
  }
  return taken;
}

// Hands the tensors over as Python's objects; the table keeps the names. None, and nothing done,
// where nobody else holds one of them.
py::object release_tensors(ParamTable& table) {
  const auto shared = [](const at::Tensor& tensor) { return tensor.use_count() > 1; };
  if (std::none_of(table.tensors.begin(), table.tensors.end(), shared)) return py::none();
  const size_t size = table.tensors.size();
  const auto objects = py::reinterpret_steal<py::list>(PyList_New(static_cast<Py_ssize_t>(size)));
  if (!objects) throw py::error_already_set();
  for (size_t i = 0; i < size; ++i) {
    PyObject* object = THPVariable_Wrap(std::move(table.tensors[i]));
    if (object == nullptr) throw py::error_already_set();
    PyList_SET_ITEM(objects.ptr(), static_cast<Py_ssize_t>(i), object);
  }
  std::vector<at::Tensor>().swap(table.tensors);
  return objects;
}

// The tensors of a list, each as `take` makes one of it.
template <typename Take>
std::vector<at::Tensor> tensors_of(const ParamTable& table, const py::list& list,
                                   const Take& take) {
  if (list.size() != table.names.size())
    throw py::value_error("ParamTable: names and tensors differ in length");
  std::vector<at::Tensor> out;
  out.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    constexpr size_t kAhead = 16;
    if (i + kAhead < list.size())
      pyparam::prefetch_bytes(PyList_GET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i + kAhead)), 1);
    const py::handle object = PyList_GET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i));
    out.push_back(take(tensor_in(object, [&] { return "tensors[" + std::to_string(i) + "]"; })));
  }
  return out;
}

// A table of these names and other tensors.
ParamTable with_tensors(const ParamTable& table, GivenList given) {
  if (given.tensors.size() != table.names.size())
    throw py::value_error("ParamTable: names and tensors differ in length");
  return {table.names, std::move(given.tensors)};
}

// The same over tensors of Python objects that live as long as it, of which it counts as no holder:
// counting each of them costs more than many a verb does. Copies of it count.
struct BorrowedTable : ParamTable {
  BorrowedTable(const ParamTable& table, const py::list& list) {
    names = table.names;
    tensors = tensors_of(table, list, c10::MaybeOwnedTraits<at::Tensor>::createBorrow);
  }
  ~BorrowedTable() {
    for (at::Tensor& tensor : tensors) tensor.unsafeReleaseTensorImpl();
  }
  BorrowedTable(const BorrowedTable&) = delete;
  BorrowedTable& operator=(const BorrowedTable&) = delete;
};

std::vector<Name> attributes_of(const ParamTable& table) {
  std::vector<Name> out;
  const size_t size = table.names.size();
  out.reserve(size);
  for (size_t i = 0; i < size; ++i) out.push_back({std::string(table.names.attribute(i))});
  return out;
}

std::vector<Name> owner_names_of(const ParamTable& table) {
  std::vector<Name> out;
  const size_t size = table.names.size();
  out.reserve(size);
  for (size_t i = 0; i < size; ++i) out.push_back({table.names.owner(i)});
  return out;
}

}  // namespace

namespace pyparam {
void bind_device_table(py::module_& m);
void bind_extent(py::module_& m);
void bind_files(py::module_& m);
void bind_script(py::module_& m);
void bind_init(py::module_& m);
void bind_kinds(py::module_& m);
void bind_parts(py::module_& m);
}  // namespace pyparam

PYBIND11_MODULE(_C, m) {
  pyparam::answer_signals();
  m.def(
      "article_of", [](const Name& name) { return pyparam::article_of(name.text); },
      py::arg("name"));
  pyparam::bind_walk(m);
  pyparam::bind_outline(m);
  pyparam::bind_measure(m);

  py::class_<ParamTable>(m, "ParamTable")
      .def(py::init(&table_from_columns), py::arg("names"), py::arg("tensors"))
      .def("__len__", [](const ParamTable& t) { return t.names.size(); })
      .def_property_readonly("names", &names_of)
      .def_property_readonly("tensors", [](const ParamTable& t) { return t.tensors; })
      .def_property_readonly("attributes", &attributes_of)
      .def_property_readonly("owner_names", &owner_names_of)
      .def(
          "tensor", [](const ParamTable& t, size_t i) { return t.tensors.at(i); }, py::arg("index"))
      .def("take", &take, py::arg("indices"))
      .def("release_tensors", &release_tensors)
      .def("with_tensors", &with_tensors, py::arg("tensors"));
  py::class_<BorrowedTable, ParamTable>(m, "BorrowedTable")
      .def(py::init<const ParamTable&, const py::list&>(), py::arg("table"), py::arg("tensors"),
           py::keep_alive<1, 3>());

  pyparam::bind_files(m);
  pyparam::bind_script(m);
  pyparam::bind_compare(m);
  pyparam::bind_fingerprint(m);
  pyparam::bind_share(m);
  pyparam::bind_flatten(m);
  pyparam::bind_pack(m);
  pyparam::bind_init(m);
  pyparam::bind_kinds(m);
  pyparam::bind_parts(m);
  pyparam::bind_device_table(m);
  pyparam::bind_extent(m);
}
