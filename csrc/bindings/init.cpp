// The bulk face of torch.ops.pyparam.fill_: rows by index, streams by name, no list of tensors built.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/full.h>
#include <torch/csrc/utils/pybind.h>

#include <array>
#include <limits>
#include <string>
#include <unordered_map>

#include "kernels/philox.h"
#include "kernels/stream.h"
#include "table/param_table.h"

namespace py = pybind11;

namespace pyparam {
namespace {

using FillOp = at::Tensor(at::TensorList, at::IntArrayRef, at::ArrayRef<double>, int64_t, at::IntArrayRef,
                          at::IntArrayRef, at::IntArrayRef, bool);
using Row = std::tuple<int64_t, double, double, double, double>;

// Fills tensor i of the table by rows[row_of[i]], from the stream of its name; a negative row leaves it alone.
// Returns mean and standard deviation of each, NaN where nothing was written, or (0, 2) without `moments`.
at::Tensor fill_table(const ParamTable& table, const std::vector<Row>& rows, const std::vector<int64_t>& row_of,
                      uint64_t seed, bool moments) {
  if (row_of.size() != table.size()) throw py::value_error("fill: row_of and the table differ in length");
  py::gil_scoped_release released;
  std::vector<int64_t> kinds, streams, filled;
  std::vector<double> parameters;
  std::vector<at::Tensor> chosen;
  kinds.reserve(table.size());
  streams.reserve(table.size());
  parameters.reserve(4 * table.size());
  const bool all = std::all_of(row_of.begin(), row_of.end(), [](int64_t r) { return r >= 0; });
  for (size_t i = 0; i < table.size(); ++i) {
    if (row_of[i] < 0) continue;
    const auto& [kind, p0, p1, p2, p3] = rows.at(static_cast<size_t>(row_of[i]));
    kinds.push_back(kind);
    for (const double p : {p0, p1, p2, p3}) parameters.push_back(p);
    streams.push_back(static_cast<int64_t>(stream_of_name(table.names[i])));
    if (all) continue;
    filled.push_back(static_cast<int64_t>(i));
    chosen.push_back(table.tensors[i]);
  }
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("pyparam::fill_", "").typed<FillOp>();
  const at::Tensor got = op.call(all ? at::TensorList(table.tensors) : at::TensorList(chosen), kinds, parameters,
                                 static_cast<int64_t>(seed), streams, {}, {}, moments);
  if (all || !moments) return got;
  at::Tensor result = at::full({static_cast<int64_t>(table.size()), 2}, std::numeric_limits<double>::quiet_NaN(),
                               got.options());
  auto* to = result.mutable_data_ptr<double>();
  const auto* from = got.const_data_ptr<double>();
  for (size_t k = 0; k < filled.size(); ++k) {
    to[2 * filled[k]] = from[2 * k];
    to[2 * filled[k] + 1] = from[2 * k + 1];
  }
  return result;
}

// Numbers the distinct (shape, dtype) pairs of a table in order of appearance: the class of each tensor, and the
// index of each class's first tensor.
std::pair<std::vector<int64_t>, std::vector<int64_t>> shape_classes(const ParamTable& table) {
  std::vector<int64_t> class_of, first;
  class_of.reserve(table.size());
  std::unordered_map<std::string, int64_t> known;
  std::string key;
  for (size_t i = 0; i < table.size(); ++i) {
    const at::Tensor& t = table.tensors[i];
    key.assign(1, static_cast<char>(t.scalar_type()));
    const at::IntArrayRef sizes = t.sizes();
    key.append(reinterpret_cast<const char*>(sizes.data()), sizes.size() * sizeof(int64_t));
    const auto [entry, fresh] = known.try_emplace(key, static_cast<int64_t>(first.size()));
    if (fresh) first.push_back(static_cast<int64_t>(i));
    class_of.push_back(entry->second);
  }
  return {std::move(class_of), std::move(first)};
}

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  const philox::Words w =
      philox::philox4x32_10({counter[0], counter[1], counter[2], counter[3]}, key[0], key[1]);
  return {w.w0, w.w1, w.w2, w.w3};
}

}  // namespace

void bind_init(py::module_& m) {
  m.def("fill_table", &fill_table, py::arg("table"), py::arg("rows"), py::arg("row_of"), py::arg("seed"),
        py::arg("moments"));
  m.def("shape_classes", &shape_classes, py::arg("table"));
  m.def("stream_of_name", &stream_of_name, py::arg("name"));
  m.def("philox4x32_10", &philox, py::arg("counter"), py::arg("key"));
}

}  // namespace pyparam
