// Bindings of what reads files: definitions only.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <set>

#include "files/safetensors.h"

namespace pyparam {

namespace py = pybind11;

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

std::pair<uint64_t, uint64_t> byte_range(const SafetensorsHeader& header, size_t i) {
  return {header.begins.at(i), header.ends.at(i)};
}

std::set<uint32_t> dtypes(const SafetensorsHeader& header) {
  return {header.dtypes.begin(), header.dtypes.end()};
}

py::dict metadata(const SafetensorsHeader& header) {
  py::dict out;
  for (const auto& [key, value] : header.metadata) out[py::str(key)] = value;
  return out;
}

}  // namespace

void bind_files(py::module_& m) {
  py::class_<SafetensorsHeader>(m, "SafetensorsHeader")
      .def(py::init(&parse), py::arg("text"), py::arg("data_bytes"), py::arg("codes"))
      .def("__len__", &SafetensorsHeader::size)
      .def_readonly("names", &SafetensorsHeader::names)
      .def_property_readonly("dtypes", &dtypes)
      .def_property_readonly("metadata", &metadata)
      .def(
          "dtype", [](const SafetensorsHeader& h, size_t i) { return h.dtypes.at(i); },
          py::arg("index"))
      .def("shape", &shape, py::arg("index"))
      .def("byte_range", &byte_range, py::arg("index"));
}

}  // namespace pyparam
