// What distributed verbs ask of the parts of parameters that lie on this rank.
#include "table/parts.h"
#include "bindings/held_table.h"

#include <torch/csrc/utils/pybind.h>

#include "bindings/column.h"
#include "bindings/given.h"
#include "bindings/operands.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/part_compare.h"
#include "walk/local_parts.h"

namespace py = pybind11;

namespace pyparam {
namespace {

// One block of a whole, as Python has it: (whole, offsets, sizes, dim, borders).
using GivenCut = std::tuple<std::vector<int64_t>, std::vector<int64_t>, std::vector<int64_t>,
                            int64_t, std::vector<int64_t>>;

std::vector<Cut> cuts_of(const std::vector<GivenCut>& given) {
  std::vector<Cut> cuts;
  cuts.reserve(given.size());
  for (const auto& [whole, offsets, sizes, dim, borders] : given)
    cuts.push_back({{whole, offsets, sizes}, dim, borders});
  return cuts;
}

// Of each row the number of its kind's cut.
using CutOf = std::vector<int64_t>;
CutOf numbers_of(const Given& column) {
  const at::Tensor& given = column.tensor;
  TORCH_CHECK_TYPE(given.is_cpu() && given.scalar_type() == at::kLong && given.is_contiguous() &&
                       given.dim() == 1,
                   "cut_of must be int64 of one dimension on the CPU");
  const auto* begin = given.const_data_ptr<int64_t>();
  return {begin, begin + given.numel()};
}

LayoutColumns layouts_of(const ParamTable& table) {
  LayoutColumns layouts;
  for (const at::Tensor& tensor : table.tensors) layouts.append(tensor);
  return layouts;
}

at::Tensor norms_of(const ParamTable& table, double p) {
  check_order("total_norm", p);
  check_operands("total_norm", "tensors", table.tensors);
  const py::gil_scoped_release release;
  const std::vector<NormPart> parts = cpu::tensor_norms("total_norm", table.tensors, p);
  at::Tensor out =
      at::empty({static_cast<int64_t>(parts.size()), 2}, at::TensorOptions().dtype(at::kDouble));
  auto* to = out.mutable_data_ptr<double>();
  for (const NormPart& part : parts) {
    *to++ = part.sum;
    *to++ = part.scale;
  }
  return out;
}

}  // namespace

void bind_parts(py::module_& m) {
  const auto unlocked = py::call_guard<py::gil_scoped_release>();

  py::class_<ExactTable>(m, "ExactTable")
      .def_static(
          "summed",
          [](const Given& values, const Given& rows_of, int64_t rows) {
            return ExactTable::summed(values.tensor, rows_of.tensor, rows);
          },
          py::arg("values"), py::arg("rows_of"), py::arg("rows"))
      .def_static(
          "unpacked",
          [](const Given& windows, const Given& limbs) {
            return ExactTable::unpacked(windows.tensor, limbs.tensor);
          },
          py::arg("windows"), py::arg("limbs"))
      .def("windows", &ExactTable::windows)
      .def(
          "packed",
          [](const ExactTable& table, const Given& windows) {
            return table.packed(windows.tensor);
          },
          py::arg("windows"))
      .def("rounded", &ExactTable::rounded);

  m.def(
      "local_parts",
      [](const ParamTable& table, const py::object& dtensor, const py::dict& dims,
         const py::object& local_of) {
        try {
          walk::LocalParts found =
              walk::local_parts(table, dtensor.ptr(), dims.ptr(), local_of.ptr());
          return std::make_tuple(
              HeldTable(table.names, py::reinterpret_steal<py::list>(found.locals.release())),
              column(found.kind_of), std::move(found.first));
        } catch (const walk::PythonError&) {
          throw py::error_already_set();
        }
      },
      py::arg("table"), py::arg("dtensor"), py::arg("dims"), py::arg("local_of"));
  m.attr("EXACT_LIMBS") = exact::kLimbs;
  m.def("layouts", &layouts_of, py::arg("table"));
  m.def(
      "measure_parts",
      [](const ParamTable& locals, bool histogram) {
        check_operands("measure", "tensors", locals.tensors);
        py::gil_scoped_release release;
        PartStatistics found = measure_parts(locals, histogram);
        const Measured& of = found.measured;
        using Bins = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
        std::optional<Bins> bins;
        if (histogram) bins = Bins(of.below, of.offsets, of.bins, of.bin_counts);
        return std::make_tuple(of.values, of.counts, bins, std::move(found.sums));
      },
      py::arg("locals"), py::arg("histogram"));
  m.def(
      "statistics_of",
      [](const ExactTable& sums, const Given& counts, const Given& extremes, const Given& counted) {
        return statistics_of(sums, counts.tensor, extremes.tensor, counted.tensor);
      },
      py::arg("sums"), py::arg("counts"), py::arg("extremes"), py::arg("counted"));
  m.def("tensor_norms", &norms_of, py::arg("table"), py::arg("p"));
  m.def(
      "clip_to_norm",
      [](const ParamTable& grads, const Given& norm, double max_norm) {
        check_clippable(grads.tensors);
        cpu::clip_to_norm(grads.tensors, norm.tensor, max_norm);
      },
      py::arg("grads"), py::arg("norm"), py::arg("max_norm"), unlocked);
  m.def(
      "check_clippable", [](const ParamTable& grads) { check_clippable(grads.tensors); },
      py::arg("grads"), unlocked);
  m.def(
      "hash_parts",
      [](const ParamTable& locals, const std::vector<GivenCut>& cuts, const Given& cut_of) {
        check_operands("fingerprint", "tensors", locals.tensors);
        py::gil_scoped_release release;
        return hash_parts(locals, cuts_of(cuts), numbers_of(cut_of));
      },
      py::arg("locals"), py::arg("cuts"), py::arg("cut_of"));
  m.def(
      "digests_of_parts",
      [](const ParamTable& locals, const std::vector<GivenCut>& cuts, const Given& cut_of,
         const Given& sums, const Given& pieces) {
        return digests_of_parts(locals, cuts_of(cuts), numbers_of(cut_of), sums.tensor,
                                pieces.tensor);
      },
      py::arg("locals"), py::arg("cuts"), py::arg("cut_of"), py::arg("sums"), py::arg("pieces"),
      unlocked);
  m.def(
      "compare_parts",
      [](const ParamTable& a, const ParamTable& b) {
        check_operands("compare", "a", a.tensors);
        check_operands("compare", "b", b.tensors);
        py::gil_scoped_release release;
        return cpu::compare_parts(a.tensors, b.tensors);
      },
      py::arg("a"), py::arg("b"));
  m.def(
      "differences_of",
      [](const ExactTable& sums, const Given& counts, const Given& largest, const Given& numel) {
        return cpu::differences_of(sums, counts.tensor, largest.tensor, numel.tensor);
      },
      py::arg("sums"), py::arg("counts"), py::arg("largest"), py::arg("numel"));
}

}  // namespace pyparam
