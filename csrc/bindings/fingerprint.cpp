#include "bindings/fingerprint.h"

#include <algorithm>

#include "bindings/given.h"
#include "bindings/held_table.h"
#include "bindings/name.h"
#include "bindings/operands.h"
#include "kernels/hash.h"
#include "table/fingerprint.h"
#include "table/name_sums.h"

namespace pyparam {

namespace {

namespace py = pybind11;

py::bytes as_bytes(const TotalBytes& total) { return {total.data(), total.size()}; }

// By their sums of 128 bits, which columns that share their names have once.
bool same_names(const NameColumn& a, const NameColumn& b) {
  const auto of_a = a.entry_sums();
  const auto of_b = b.entry_sums();
  return of_a == of_b || std::equal(of_a->sums.begin(), of_a->sums.end(), of_b->sums.begin(),
                                    of_b->sums.end(), [](const hash::Sums& x, const hash::Sums& y) {
                                      return x.plain == y.plain && x.placed == y.placed;
                                    });
}

// The digests of a table with these names, as bytes, and the total.
py::tuple found_of(const NameColumn& names, const at::Tensor& digests) {
  const py::bytes bytes(nullptr, names.size() * kDigestBytes);
  char* to = PyBytes_AS_STRING(bytes.ptr());
  TotalBytes total;
  {
    const py::gil_scoped_release release;
    total = fingerprint_of(names, digests, to);
  }
  return py::make_tuple(bytes, as_bytes(total));
}

py::tuple fingerprint(const ParamTable& table, bool release_pages) {
  std::optional<cpu::HashOperands> operands;
  {
    const py::gil_scoped_release release;
    operands = operands_of(table, release_pages);
  }
  if (operands.has_value()) {
    check_initialized("fingerprint", "tensors", table.tensors, operands->empty);
  } else {
    check_operands("fingerprint", "tensors", table.tensors);
  }
  at::Tensor digests;
  {
    const py::gil_scoped_release release;
    digests = operands.has_value() ? cpu::fingerprint(table.tensors, *operands, release_pages)
                                   : digests_of(table, release_pages);
  }
  if (digests.is_cpu()) return py::make_tuple(table.names, found_of(table.names, digests));
  return py::make_tuple(table.names, digests);
}

}  // namespace

void bind_fingerprint(py::module_& m) {
  m.attr("FINGERPRINT_FORMAT") = hash::kHashFormat;
  py::class_<NameColumn>(m, "NameColumn")
      .def(py::init([](const py::list& names) { return name_column("fingerprint", names); }),
           py::arg("names"))
      .def("__len__", &NameColumn::size)
      .def_property_readonly("unique",
                             [](const NameColumn& names) { return names.entry_sums()->unique; })
      .def("strings", &strings_of)
      .def("__eq__", &same_names, py::is_operator())
      .def(py::pickle(&strings_of,
                      [](const py::list& names) { return name_column("NameColumn", names); }));
  m.def("fingerprint", &fingerprint, py::arg("table"), py::arg("release_pages") = false);
  m.def(
      "fingerprint_of",
      [](const NameColumn& names, const Given& digests) { return found_of(names, digests.tensor); },
      py::arg("names"), py::arg("digests"));
  m.def(
      "fingerprint_total",
      [](const NameColumn& names, const std::string_view& digests) {
        return as_bytes(total_of(names, digests));
      },
      py::arg("names"), py::arg("digests"));
}

}  // namespace pyparam
