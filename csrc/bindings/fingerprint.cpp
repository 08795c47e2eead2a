#include "bindings/fingerprint.h"

#include "bindings/given.h"
#include "bindings/held_table.h"
#include "bindings/name.h"
#include "bindings/operands.h"
#include "kernels/hash.h"
#include "table/fingerprint.h"

namespace pyparam {

void bind_fingerprint(pybind11::module_& m) {
  namespace py = pybind11;
  m.attr("FINGERPRINT_FORMAT") = hash::kHashFormat;
  const auto both = [](const TableFingerprint& found) {
    return py::make_tuple(py::bytes(found.digests), py::bytes(found.total));
  };
  // The digests and the total; of tensors on a device, the digests there.
  m.def(
      "fingerprint",
      [both](const ParamTable& table, bool release_pages) -> py::object {
        std::optional<cpu::HashOperands> operands;
        {
          py::gil_scoped_release release;
          operands = operands_of(table);
        }
        if (operands.has_value()) {
          check_initialized("fingerprint", "tensors", table.tensors, operands->empty);
        } else {
          check_operands("fingerprint", "tensors", table.tensors);
        }
        at::Tensor digests;
        TableFingerprint found;
        {
          py::gil_scoped_release release;
          digests = operands.has_value() ? cpu::fingerprint(table.tensors, *operands, release_pages)
                                         : digests_of(table, release_pages);
          if (digests.is_cpu()) found = fingerprint_of(table, digests);
        }
        return digests.is_cpu() ? py::object(both(found)) : py::cast(digests);
      },
      py::arg("table"), py::arg("release_pages") = false);
  m.def(
      "fingerprint_of",
      [both](const ParamTable& table, const Given& digests) {
        TableFingerprint found;
        {
          py::gil_scoped_release release;
          found = fingerprint_of(table, digests.tensor);
        }
        return both(found);
      },
      py::arg("table"), py::arg("digests"));
  m.def(
      "fingerprint_total",
      [](const std::vector<Name>& names, const std::string_view& digests) {
        const std::vector<std::string_view> texts = [&] {
          std::vector<std::string_view> out;
          out.reserve(names.size());
          for (const Name& name : names) out.emplace_back(name.text);
          return out;
        }();
        return py::bytes(total_of(texts, digests));
      },
      py::arg("names"), py::arg("digests"));
}

}  // namespace pyparam
