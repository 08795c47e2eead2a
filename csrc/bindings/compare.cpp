#include "bindings/compare.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "bindings/column.h"
#include "bindings/held_table.h"
#include "bindings/name.h"
#include "bindings/operands.h"
#include "files/mapped.h"
#include "table/compare.h"

namespace pybind11::detail {

// A table lends its tensors for the length of the call; a tuple has names, and the rows of files
// that they are of.
template <>
struct type_caster<pyparam::ComparedSide> {
  static constexpr auto name = const_name("ParamTable | tuple[list[str], MappedRows]");
  template <typename>
  using cast_op_type = const pyparam::ComparedSide&;
  operator const pyparam::ComparedSide&() const { return *side_; }

  bool load(handle source, bool convert) {
    if (table_.load(source, convert)) {
      side_.emplace(cast_op<const pyparam::ParamTable&>(table_));
      return true;
    }
    if (!isinstance<tuple>(source) || len(source) != 2) return false;
    const auto pair = reinterpret_borrow<tuple>(source);
    make_caster<std::shared_ptr<pyparam::files::MappedRows>> rows;
    if (!isinstance<list>(pair[0]) || pair[1].is_none() || !rows.load(pair[1], false)) return false;
    side_.emplace(pyparam::name_column("compare", pair[0].cast<list>()),
                  cast_op<std::shared_ptr<pyparam::files::MappedRows>>(rows));
    return true;
  }

 private:
  make_caster<pyparam::ParamTable> table_;
  std::optional<pyparam::ComparedSide> side_;
};

}  // namespace pybind11::detail

namespace pyparam {
namespace {

namespace py = pybind11;

void check_side(const char* list, const ComparedSide& side) {
  if (side.table() != nullptr) check_operands("compare", list, side.table()->tensors);
}

py::dict compare_sides(const ComparedSide& a, const ComparedSide& b, bool release_a,
                       bool release_b) {
  check_side("a", a);
  check_side("b", b);
  Matching matching;
  TableComparison compared;
  {
    py::gil_scoped_release release;
    matching = match("compare", a.names(), b.names());
    compared = compare_matched(a, b, matching, release_a, release_b);
  }
  py::dict out;
  out["missing"] = matching.missing;
  out["unexpected"] = matching.unexpected;
  out["in_a"] = column(compared.in_a);
  out["in_b"] = column(compared.in_b);
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
  m.def("compare", &compare_sides, py::arg("a"), py::arg("b"), py::arg("release_a") = false,
        py::arg("release_b") = false);
}

}  // namespace pyparam
