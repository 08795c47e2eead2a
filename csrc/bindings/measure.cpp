// measure, total_norm and clip_grad_norm_ over a table, without a list of tensors going through
// Python.
#include "bindings/measure.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/accumulate.h>
#include <torch/csrc/Dtype.h>
#include <torch/csrc/DynamicTypes.h>
#include <torch/csrc/autograd/python_variable.h>

#include <map>
#include <optional>
#include <utility>

#include "article.h"
#include "bindings/column.h"
#include "bindings/held_table.h"
#include "files/mapped.h"
#include "kernels/cpu/elements.h"
#include "kernels/cpu/measure.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/packed_bins.h"
#include "kernels/cpu/summaries.h"
#include "kernels/extent.h"
#include "kernels/flatten.h"
#include "table/apart.h"
#include "table/gradients.h"
#include "table/layouts.h"
#include "table/prefetch.h"

namespace py = pybind11;

namespace pyparam {

namespace {

template <typename Signature>
c10::TypedOperatorHandle<Signature> op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

std::string type_name(const at::Tensor& tensor) {
  const py::gil_scoped_acquire gil;
  const auto object = py::reinterpret_steal<py::object>(THPVariable_Wrap(tensor));
  return py::str(py::type::of(object).attr("__name__")).cast<std::string>();
}

// Refuses what dispatch would not bring to the op that reads values: tensors whose values are
// behind
// __torch_dispatch__, nested ones, and those of the meta device, for which the op only tells
// shapes.
const std::vector<at::Tensor>& plain(const char* verb, const std::vector<at::Tensor>& tensors,
                                     LayoutColumns* layouts = nullptr,
                                     ApartCheck* memory = nullptr) {
  if (memory != nullptr) memory->resize(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    prefetch_ahead(tensors, i);
    const at::Tensor& tensor = tensors[i];
    TORCH_CHECK_TYPE(!tensor.is_nested(), verb, ": tensors[", i,
                     "] is nested; expected a strided tensor, ", "such as one of its .unbind()");
    TORCH_CHECK_TYPE(!tensor.key_set().has(c10::DispatchKey::Python), verb, ": tensors[", i,
                     "] is ", with_article(type_name(tensor)),
                     ", whose values are not in one plain tensor; pass those that are, ",
                     "such as its .to_local() or .full_tensor()");
    TORCH_CHECK_VALUE(!tensor.is_meta(), verb, ": tensors[", i,
                      "] is on the meta device and has no values");
    require_extent(tensor, [&] { return c10::str(verb, ": tensors[", i, "]"); });
    if (layouts != nullptr) layouts->append(tensor);
    if (memory != nullptr) memory->take(i, tensor);
  }
  return tensors;
}

// A list with one Python object for all tensors of which `value` says the same.
template <typename Value, typename Made>
py::list shared_objects(const LayoutColumns& columns, const Value& value, const Made& made) {
  py::list out(columns.size());
  std::map<decltype(value(size_t{0})), py::object> known;
  for (size_t i = 0; i < columns.size(); ++i) {
    const auto [it, fresh] = known.try_emplace(value(i));
    if (fresh) it->second = made(i);
    out[i] = it->second;
  }
  return out;
}

py::object shape_of(const LayoutColumns& columns, size_t i) {
  return py::tuple(py::cast(columns.shape(i)));
}

py::object dtype_of(const LayoutColumns& columns, size_t i) {
  return py::reinterpret_borrow<py::object>(
      reinterpret_cast<PyObject*>(torch::getTHPDtype(columns.dtype(i))));
}

py::list shapes_of(const LayoutColumns& columns) {
  return shared_objects(
      columns, [&](size_t i) { return columns.shape(i); },
      [&](size_t i) { return shape_of(columns, i); });
}

py::list dtypes_of(const LayoutColumns& columns) {
  return shared_objects(
      columns, [&](size_t i) { return columns.dtype(i); },
      [&](size_t i) { return dtype_of(columns, i); });
}

py::list devices_of(const LayoutColumns& columns) {
  return shared_objects(
      columns,
      [&](size_t i) {
        const at::Device device = columns.device(i);
        return std::make_pair(device.type(), device.index());
      },
      [&](size_t i) { return py::cast(columns.device(i)); });
}

struct Measurement {
  Measured measured;
  LayoutColumns layouts;
  std::vector<int64_t> missing;
};

// Through the dispatcher, but for mapped files.
Measured measure_by_op(const std::vector<at::Tensor>& tensors, bool histogram,
                       const FileMaps& maps) {
  static const auto of_all =
      op<std::tuple<at::Tensor, at::Tensor>(at::TensorList)>("pyparam::measure");
  static const auto with_bins =
      op<std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>(
          at::TensorList)>("pyparam::measure_histogram");
  Measured out;
  if (!maps.empty()) {
    out = measure_tensors(tensors, histogram, maps);
  } else if (histogram) {
    std::tie(out.values, out.counts, out.below, out.offsets, out.bins, out.bin_counts) =
        with_bins.call(tensors);
  } else {
    std::tie(out.values, out.counts) = of_all.call(tensors);
  }
  return out;
}

// Nothing where some of the tensors may share memory and the caller wants those that are `apart`
// only.
std::optional<Measurement> measure(const ParamTable& table, bool grad, bool histogram,
                                   const FileMaps& maps, bool apart) {
  // In two names: a conditional of both would copy the table's list.
  const Gradients found = grad ? gradients(table) : Gradients{};
  const std::vector<at::Tensor>& tensors = grad ? found.present : table.tensors;
  // Without the dispatcher, where it would bring ordinary tensors to the CPU's kernel and do
  // nothing else. Of no tensors the op says what it gives.
  if (!tensors.empty() && dispatch_is_plain()) {
    LayoutColumns layouts;
    ApartCheck memory;
    OrdinaryMeasuring measuring(tensors, {&layouts, apart ? &memory : nullptr}, histogram, maps);
    if (measuring.read()) {
      if (apart && !memory.apart()) return std::nullopt;
      return Measurement{measuring.finish(), std::move(layouts), found.missing};
    }
  }
  LayoutColumns layouts;
  ApartCheck memory;
  plain("measure", tensors, &layouts, apart ? &memory : nullptr);
  if (apart && !memory.apart()) return std::nullopt;
  return Measurement{measure_by_op(tensors, histogram, maps), std::move(layouts), found.missing};
}

// Of rows whose tensors are made and let go one by one; nothing where some is not in its file as it
// is, or may share memory with another.
std::optional<Measurement> measure_rows(const files::MappedRows& rows, bool histogram,
                                        const FileMaps& maps) {
  if (rows.size() == 0 || !dispatch_is_plain() || !rows.in_place()) return std::nullopt;
  LayoutColumns layouts;
  ApartCheck memory;
  const auto list = cpu::ElementList::of_made(rows.size(), [&](size_t i) { return rows.tensor(i); },
                                              {&layouts, &memory});
  if (!list.has_value() || !memory.apart()) return std::nullopt;
  return Measurement{measure_elements(*list, histogram, maps), std::move(layouts), {}};
}

at::Tensor total_norm(const ParamTable& table, double p, bool grad) {
  static const auto handle = op<at::Tensor(at::TensorList, double)>("pyparam::total_norm");
  // In two names, as above.
  const Gradients found = grad ? gradients(table) : Gradients{};
  const std::vector<at::Tensor>& tensors = grad ? found.present : table.tensors;
  if (!tensors.empty() && dispatch_is_plain()) {
    if (const auto norm = cpu::norm_of_ordinary(tensors, p)) return *norm;
  }
  return handle.call(plain("total_norm", tensors), p);
}

at::Tensor clip_grad_norm_(const ParamTable& table, double max_norm, double norm_type,
                           bool error_if_nonfinite) {
  static const auto handle =
      op<at::Tensor(at::TensorList, double, double, bool)>("pyparam::clip_grad_norm_");
  const Gradients found = gradients(table);
  return handle.call(plain("clip_grad_norm_", found.present), max_norm, norm_type,
                     error_if_nonfinite);
}

}  // namespace

void bind_measure(py::module_& m) {
  const auto unlocked = py::call_guard<py::gil_scoped_release>();

  py::class_<LayoutColumns>(m, "LayoutColumns")
      .def("__len__", &LayoutColumns::size)
      .def("shape", &shape_of)
      .def("dtype", &dtype_of)
      .def("device", [](const LayoutColumns& c, size_t i) { return py::cast(c.device(i)); })
      .def("shapes", &shapes_of)
      .def("dtypes", &dtypes_of)
      .def("devices", &devices_of);

  using cpu::PackedBins;
  using Packed = std::shared_ptr<PackedBins>;
  py::class_<PackedBins, Packed>(m, "PackedBins")
      .def("__len__", &PackedBins::rows)
      .def_property_readonly("entries", &PackedBins::entries)
      .def_property_readonly("nbytes", &PackedBins::bytes)
      .def(
          "tensors",
          [](const Packed& p, const std::vector<int64_t>& rows) {
            for (const int64_t row : rows) {
              if (row < 0 || row >= p->rows()) throw py::index_error("no such row");
            }
            return histogram_rows(*p, column(rows));
          },
          py::arg("rows"))
      .def(
          "tensors", [](const Packed& p) { return histogram_rows(*p, {}); }, unlocked)
      .def(
          "below",
          [](const Packed& p, int64_t first, int64_t count) {
            if (first < 0 || count < 0 || first + count > kLimits)
              throw py::index_error("no such limits");
            return histogram_below(*p, first, count);
          },
          py::arg("first"), py::arg("count"), unlocked)
      .def(
          "steps", [](const Packed& p, int64_t dropped) { return histogram_steps(*p, dropped); },
          py::arg("dropped"), unlocked)
      .def(
          "quantiles",
          [](const Packed& p, const at::Tensor& extremes, const at::Tensor& one_value,
             const at::Tensor& q) { return histogram_quantiles(*p, extremes, one_value, q); },
          py::arg("extremes"), py::arg("one_value"), py::arg("q"), unlocked);

  py::class_<Measurement>(m, "Measurement")
      .def_property_readonly("values", [](const Measurement& m) { return m.measured.values; })
      .def_property_readonly("counts", [](const Measurement& m) { return m.measured.counts; })
      .def_property_readonly("bins",
                             [](const Measurement& m) -> py::object {
                               const Measured& of = m.measured;
                               if (of.packed != nullptr) return py::cast(of.packed);
                               if (!of.bins.defined()) return py::none();
                               return py::make_tuple(of.below, of.offsets, of.bins, of.bin_counts);
                             })
      .def_readonly("layouts", &Measurement::layouts)
      .def_readonly("missing", &Measurement::missing);

  m.def("measure", &measure, py::arg("table"), py::arg("grad"), py::arg("histogram"),
        py::arg("maps"), py::arg("apart"), unlocked);
  m.def("measure_rows", &measure_rows, py::arg("rows"), py::arg("histogram"), py::arg("maps"),
        unlocked);
  m.def("measure_progress", &measure_progress);
  m.def("total_norm", &total_norm, py::arg("table"), py::arg("p"), py::arg("grad"), unlocked);
  m.def("clip_grad_norm_", &clip_grad_norm_, py::arg("table"), py::arg("max_norm"),
        py::arg("norm_type"), py::arg("error_if_nonfinite"), unlocked);
  m.def("merge_statistics", &merge_statistics, unlocked);
  m.def("merge_histograms", &merge_histograms, unlocked);
  m.def("histogram_steps",
        py::overload_cast<const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t>(
            &histogram_steps),
        unlocked);
  m.def(
      "histogram_quantiles",
      py::overload_cast<const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                        const at::Tensor&, const at::Tensor&>(&histogram_quantiles),
      unlocked);
  m.def("bin_edges", &bin_edges, py::arg("bins"), unlocked);
}

}  // namespace pyparam
