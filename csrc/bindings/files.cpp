// Bindings of what reads files: definitions only.
#include <c10/util/accumulate.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/Dtype.h>
#include <torch/csrc/DynamicTypes.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <map>
#include <memory>
#include <optional>
#include <set>

#include "bindings/given.h"
#include "bindings/held_table.h"
#include "bindings/name.h"
#include "files/mapped.h"
#include "files/natural.h"
#include "files/safetensors.h"
#include "table/mapped_rows.h"

namespace pyparam {

namespace py = pybind11;

using files::MappedBytes;
using files::MappedEntries;
using files::SafetensorsHeader;

namespace {

SafetensorsHeader parse(const py::bytes& text, uint64_t data_bytes,
                        const std::vector<std::pair<std::string, uint32_t>>& codes) {
  std::vector<files::DtypeCode> known;
  known.reserve(codes.size());
  for (const auto& [name, bits] : codes) known.push_back({name, bits});
  const std::string_view view(text);
  try {
    const py::gil_scoped_release without_gil;
    return files::parse_safetensors(view, data_bytes, known);
  } catch (const files::HeaderError& error) {
    const std::string* entry = error.entry();
    if (entry == nullptr) throw py::value_error(error.what());
    throw py::value_error("entry " + py::repr(py::str(*entry)).cast<std::string>() + ": " +
                          error.what());
  }
}

py::tuple shape(const SafetensorsHeader& header, size_t i) {
  const size_t end = header.shape_ends.at(i);
  const size_t begin = i == 0 ? 0 : header.shape_ends[i - 1];
  py::tuple out(end - begin);
  for (size_t d = begin; d < end; ++d) out[d - begin] = header.extents[d];
  return out;
}

std::set<uint32_t> dtypes(const SafetensorsHeader& header) {
  return {header.dtypes.begin(), header.dtypes.end()};
}

py::dict metadata(const SafetensorsHeader& header) {
  py::dict out;
  for (const auto& [key, value] : header.metadata) out[py::str(key)] = value;
  return out;
}

// Holds a Python object's buffer until the last tensor over it is gone, on whatever thread.
MappedBytes map_of(const py::buffer& from) {
  auto view = std::unique_ptr<Py_buffer>(new Py_buffer);
  if (PyObject_GetBuffer(from.ptr(), view.get(), PyBUF_WRITABLE) != 0)
    throw py::error_already_set();
  void* const data = view->buf;
  const auto size = static_cast<size_t>(view->len);
  const std::shared_ptr<void> owner(view.release(), [](void* held) {
    const py::gil_scoped_acquire gil;
    PyBuffer_Release(static_cast<Py_buffer*>(held));
    delete static_cast<Py_buffer*>(held);
  });
  return {data, size, owner};
}

// The entries of a header whose data starts at byte `start`. `dtypes` says of each of the format's
// what it is in torch, and how many of its elements are one of torch's.
MappedEntries entries_of(const SafetensorsHeader& header, uint64_t start,
                         const std::vector<std::pair<py::object, int64_t>>& dtypes) {
  std::vector<at::ScalarType> in_torch;
  for (const auto& [dtype, packed] : dtypes) {
    in_torch.push_back(THPDtype_Check(dtype.ptr())
                           ? reinterpret_cast<THPDtype*>(dtype.ptr())->scalar_type
                           : at::ScalarType::Undefined);
  }
  MappedEntries out;
  out.begins.reserve(header.size());
  out.dtypes.reserve(header.size());
  out.extents.reserve(header.extents.size());
  out.shape_ends.reserve(header.size());
  std::vector<int64_t> shape;
  size_t extent = 0;
  for (size_t i = 0; i < header.size(); ++i) {
    shape.clear();
    for (; extent < header.shape_ends[i]; ++extent) shape.push_back(header.extents[extent]);
    const uint32_t kind = header.dtypes[i];
    if (!shape.empty()) shape.back() /= dtypes.at(kind).second;
    out.append(start + header.begins[i], in_torch[kind], shape);
  }
  return out;
}

using files::MappedRows;
using MappedPart = std::pair<std::shared_ptr<MappedEntries>, std::shared_ptr<MappedBytes>>;

MappedRows rows_of(const std::vector<MappedPart>& parts, std::vector<uint64_t> places) {
  std::vector<MappedRows::Part> shared;
  for (const auto& [entries, bytes] : parts) shared.push_back({entries, bytes});
  return {std::move(shared), std::move(places)};
}

// The rows as a table under these names; `live` are tensors that somebody has already, by row. It
// holds tensors, not objects: weak references to what a file has given keep those from being
// swapped anyway.
HeldTable table_of(const MappedRows& rows, const py::list& names,
                   const std::map<size_t, Given>& live) {
  if (names.size() != rows.size()) throw py::value_error("expected a name for each row");
  ParamTable table;
  table.names = name_column("table", names);
  const py::gil_scoped_release without_gil;
  table.tensors.reserve(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto own = live.find(i);
    table.tensors.push_back(own != live.end() ? own->second.tensor : rows.tensor(i));
  }
  return HeldTable(std::move(table));
}

// The names in natural order; nothing where one of them is no text that UTF-8 can hold.
std::optional<py::list> natural(const py::list& names) {
  std::vector<std::string_view> texts;
  texts.reserve(names.size());
  for (const py::handle name : names) {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(name.ptr(), &size);
    if (text == nullptr) {
      PyErr_Clear();
      return std::nullopt;
    }
    texts.emplace_back(text, static_cast<size_t>(size));
  }
  const std::vector<size_t> order = files::natural_order(texts);
  py::list out(order.size());
  for (size_t i = 0; i < order.size(); ++i) out[i] = names[order[i]];
  return out;
}

// Whether the entries stand by falling width of dtype, and those of one dtype by their names: the
// order of the library that writes the format, which no one chose.
bool in_the_librarys_order(const SafetensorsHeader& header, const std::vector<uint32_t>& bits) {
  std::vector<size_t> last(bits.size(), header.size());
  uint32_t width = ~uint32_t{0};
  for (size_t i = 0; i < header.size(); ++i) {
    const uint32_t dtype = header.dtypes[i];
    if (bits.at(dtype) > width) return false;
    width = bits[dtype];
    if (last[dtype] != header.size() && header.names[i] < header.names[last[dtype]]) return false;
    last[dtype] = i;
  }
  return true;
}

// The positions of the names in natural order.
std::vector<size_t> names_in_order(const SafetensorsHeader& header) {
  std::vector<std::string_view> names;
  names.reserve(header.size());
  for (size_t i = 0; i < header.size(); ++i) names.push_back(header.names[i]);
  return files::natural_order(names);
}

MappedEntries entries_at(const std::vector<uint64_t>& begins, const py::list& dtypes,
                         const py::list& shapes) {
  if (dtypes.size() != begins.size() || shapes.size() != begins.size())
    throw py::value_error("MappedEntries: expected a dtype and a shape for each place");
  MappedEntries out;
  std::vector<int64_t> shape;
  for (size_t i = 0; i < begins.size(); ++i) {
    const py::object dtype = dtypes[i];
    if (!THPDtype_Check(dtype.ptr())) throw py::type_error("MappedEntries: expected dtypes");
    shape.clear();
    for (const py::handle extent : py::sequence(shapes[i])) shape.push_back(extent.cast<int64_t>());
    out.append(begins[i], reinterpret_cast<THPDtype*>(dtype.ptr())->scalar_type, shape);
  }
  return out;
}

py::object entry_dtype(const MappedEntries& entries, size_t i) {
  return py::reinterpret_borrow<py::object>(
      reinterpret_cast<PyObject*>(torch::getTHPDtype(entries.dtypes.at(i))));
}

std::pair<uint64_t, uint64_t> entry_bytes(const MappedEntries& entries, size_t i) {
  const auto bytes = static_cast<uint64_t>(c10::multiply_integers(entries.shape(i))) *
                     c10::elementSize(entries.dtypes.at(i));
  return {entries.begins.at(i), entries.begins.at(i) + bytes};
}

}  // namespace

void bind_files(py::module_& m) {
  py::class_<SafetensorsHeader>(m, "SafetensorsHeader")
      .def(py::init(&parse), py::arg("text"), py::arg("data_bytes"), py::arg("codes"))
      .def("__len__", &SafetensorsHeader::size)
      .def_property_readonly("dtypes", &dtypes)
      .def_property_readonly("metadata", &metadata)
      .def(
          "dtype", [](const SafetensorsHeader& h, size_t i) { return h.dtypes.at(i); },
          py::arg("index"))
      .def("shape", &shape, py::arg("index"))
      .def("in_the_librarys_order", &in_the_librarys_order, py::arg("bits"))
      .def_property_readonly("names",
                             [](const SafetensorsHeader& header) {
                               py::list out(header.size());
                               for (size_t i = 0; i < header.size(); ++i)
                                 out[i] = str_of(header.names[i]);
                               return out;
                             })
      .def("natural_order", &names_in_order)
      .def("entries", &entries_of, py::arg("start"), py::arg("dtypes"));

  // What was freed and is kept for later goes back to the system, where that can be asked for.
  m.def(
      "trim_memory",
      [] {
#if defined(__GLIBC__)
        malloc_trim(0);
#endif
      },
      py::call_guard<py::gil_scoped_release>());

  m.def("natural", &natural, py::arg("names"));

  py::class_<MappedBytes, std::shared_ptr<MappedBytes>>(m, "MappedBytes")
      .def(py::init(&map_of), py::arg("buffer"))
      .def("__len__", &MappedBytes::size);
  py::class_<MappedEntries, std::shared_ptr<MappedEntries>>(m, "MappedEntries")
      .def(py::init(&entries_at), py::arg("begins"), py::arg("dtypes"), py::arg("shapes"))
      .def("__len__", &MappedEntries::size)
      .def("dtype", &entry_dtype, py::arg("index"))
      .def(
          "shape",
          [](const MappedEntries& entries, size_t i) {
            return py::tuple(py::cast(entries.shape(i).vec()));
          },
          py::arg("index"))
      .def("byte_range", &entry_bytes, py::arg("index"));
  py::class_<MappedRows, std::shared_ptr<MappedRows>>(m, "MappedRows")
      .def(py::init(&rows_of), py::arg("parts"), py::arg("places"))
      .def("__len__", &MappedRows::size)
      .def("tensor", &MappedRows::tensor, py::arg("row"))
      .def("take", &MappedRows::take, py::arg("rows"))
      .def_property_readonly("in_place", &MappedRows::in_place)
      .def("table", &table_of, py::arg("names"), py::arg("live"))
      .def(
          "layout_kinds", [](const MappedRows& rows) { return layout_kinds(rows); },
          py::call_guard<py::gil_scoped_release>())
      .def("apart_sets", &apart_sets, py::call_guard<py::gil_scoped_release>());
}

}  // namespace pyparam
