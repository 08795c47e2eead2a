// Rows of columns as text, without a Python object for each number.
#include <torch/csrc/utils/pybind.h>

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "files/json_text.h"

namespace py = pybind11;

namespace pyparam {

namespace {

// A column of numbers, float64 or int64, or of texts that are JSON already.
using TextColumn = std::variant<at::Tensor, py::list>;

size_t size_of(const TextColumn& column) {
  const auto* numbers = std::get_if<at::Tensor>(&column);
  return numbers == nullptr ? std::get<py::list>(column).size()
                            : static_cast<size_t>(numbers->numel());
}

void check_column(const TextColumn& column, size_t rows) {
  if (size_of(column) != rows) throw py::value_error("json_rows: columns differ in length");
  const auto* numbers = std::get_if<at::Tensor>(&column);
  if (numbers == nullptr) return;
  const bool known = numbers->scalar_type() == at::kDouble || numbers->scalar_type() == at::kLong;
  if (!known || numbers->dim() != 1 || !numbers->is_cpu()) {
    throw py::type_error("json_rows: a column is float64 or int64 [rows] of the CPU, or strings");
  }
}

void append_entry(std::string& text, const TextColumn& column, size_t row) {
  if (const auto* numbers = std::get_if<at::Tensor>(&column)) {
    const auto place = static_cast<int64_t>(row) * numbers->stride(0);
    if (numbers->scalar_type() == at::kDouble) {
      files::append_json(text, numbers->const_data_ptr<double>()[place]);
    } else {
      files::append_json(text, numbers->const_data_ptr<int64_t>()[place]);
    }
    return;
  }
  const py::handle entry = std::get<py::list>(column)[row];
  Py_ssize_t size = 0;
  const char* const utf8 = PyUnicode_AsUTF8AndSize(entry.ptr(), &size);
  if (utf8 == nullptr) throw py::error_already_set();
  text.append(utf8, static_cast<size_t>(size));
}

// The rows, with `between` between them: before each column's entry stands its piece, and one
// behind the last.
std::string json_rows(const std::vector<std::string>& pieces,
                      const std::vector<TextColumn>& columns, std::string_view between) {
  if (columns.empty() || pieces.size() != columns.size() + 1)
    throw py::value_error("json_rows: expected a piece before each column and one behind the last");
  const size_t rows = size_of(columns.front());
  for (const TextColumn& column : columns) check_column(column, rows);
  std::string text;
  for (size_t row = 0; row < rows; ++row) {
    if (row > 0) text.append(between);
    for (size_t c = 0; c < columns.size(); ++c) {
      text.append(pieces[c]);
      append_entry(text, columns[c], row);
    }
    text.append(pieces.back());
  }
  return text;
}

}  // namespace

void bind_text(py::module_& m) {
  m.def("json_rows", &json_rows, py::arg("pieces"), py::arg("columns"), py::arg("between"));
}

}  // namespace pyparam
