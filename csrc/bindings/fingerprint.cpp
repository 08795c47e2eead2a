#include "bindings/fingerprint.h"

#include "bindings/operands.h"
#include "kernels/hash.h"
#include "table/fingerprint.h"

namespace pyparam {

void bind_fingerprint(pybind11::module_& m) {
  namespace py = pybind11;
  m.attr("FINGERPRINT_FORMAT") = hash::kHashFormat;
  m.def(
      "fingerprint",
      [](const ParamTable& table, bool release_pages) {
        check_operands("fingerprint", "tensors", table.tensors);
        TableFingerprint result;
        {
          py::gil_scoped_release release;
          result = fingerprint_of(table, release_pages);
        }
        return py::make_tuple(py::bytes(result.digests), py::bytes(result.total));
      },
      py::arg("table"), py::arg("release_pages") = false);
  m.def(
      "fingerprint_total",
      [](const std::vector<std::string_view>& names, const std::string_view& digests) {
        return py::bytes(total_of(names, digests));
      },
      py::arg("names"), py::arg("digests"));
}

}  // namespace pyparam
