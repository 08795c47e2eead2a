#include "bindings/compare.h"

#include "bindings/held_table.h"
#include "bindings/operands.h"
#include "table/compare.h"

namespace pyparam {
namespace {

namespace py = pybind11;

py::dict compare_tables(const ParamTable& a, const ParamTable& b, bool release_a, bool release_b) {
  check_operands("compare", "a", a.tensors);
  check_operands("compare", "b", b.tensors);
  Matching matching;
  TableComparison compared;
  {
    py::gil_scoped_release release;
    matching = match("compare", a, b);
    compared = compare_matched(a, b, matching, release_a, release_b);
  }
  py::dict out;
  out["missing"] = matching.missing;
  out["unexpected"] = matching.unexpected;
  out["in_a"] = compared.in_a;
  out["in_b"] = compared.in_b;
  out["values"] = compared.values;
  out["counts"] = compared.counts;
  out["sizes"] = compared.sizes;
  out["ends"] = compared.ends;
  out["retyped"] = compared.retyped;
  out["reshaped_a"] = compared.reshaped_a;
  out["reshaped_b"] = compared.reshaped_b;
  return out;
}

}  // namespace

void bind_compare(py::module_& m) {
  m.def("compare", &compare_tables, py::arg("a"), py::arg("b"), py::arg("release_a") = false,
        py::arg("release_b") = false);
}

}  // namespace pyparam
