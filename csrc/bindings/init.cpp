// The bulk face of torch.ops.pyparam.fill_: rows by index, streams by name, no list of tensors
// built.
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/utils/pybind.h>
#include "bindings/held_table.h"
#include "bindings/name.h"

#include <algorithm>
#include <array>
#include <string>
#include <unordered_map>

#include "kernels/cpu/words.h"
#include "kernels/philox.h"
#include "kernels/stream.h"

namespace py = pybind11;

namespace pyparam {
namespace {

using FillOp = at::Tensor(at::TensorList, at::IntArrayRef, at::ArrayRef<double>, int64_t,
                          at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, bool);
using Row = std::tuple<int64_t, double, double, double, double>;

// Fills tensor i of the table by rows[row_of[i]], from the stream of its name; a negative row
// leaves it alone. Where tensors are parts, offsets and strides say where they lie in their wholes,
// as for the op. Returns the mean and standard deviation of each, NaN where nothing was written;
// (0, 2) without `moments`.
at::Tensor fill_table(const ParamTable& table, const std::vector<Row>& rows,
                      const std::vector<int64_t>& row_of, uint64_t seed, bool moments,
                      const std::vector<int64_t>& offsets, const std::vector<int64_t>& strides) {
  if (row_of.size() != table.size())
    throw py::value_error("fill: row_of and the table differ in length");
  py::gil_scoped_release released;
  const auto size = static_cast<int64_t>(table.size());
  std::vector<int64_t> kinds(table.size()), streams(table.size());
  std::vector<double> parameters(4 * table.size());
  const Row keep = {-1, 0.0, 0.0, 0.0, 0.0};
  at::parallel_for(0, size, 1 << 16, [&](int64_t begin, int64_t end) {
    NameColumn::Reader names(table.names);
    for (int64_t i = begin; i < end; ++i) {
      const auto& [kind, p0, p1, p2, p3] =
          row_of[i] < 0 ? keep : rows.at(static_cast<size_t>(row_of[i]));
      kinds[i] = kind;
      std::copy_n(std::array{p0, p1, p2, p3}.data(), 4, &parameters[4 * i]);
      streams[i] = static_cast<int64_t>(stream_of_name(names[static_cast<size_t>(i)]));
    }
  });
  // Other subclasses' dispatch must not see a fill that leaves them alone.
  std::vector<at::Tensor> shielded;
  at::TensorList tensors = table.tensors;
  for (size_t i = 0; i < table.size(); ++i) {
    if (kinds[i] >= 0 || !table.tensors[i].key_set().has(c10::DispatchKey::Python)) continue;
    if (shielded.empty()) shielded = table.tensors;
    // Of as many dimensions: strides of all tensors stand in one list.
    shielded[i] =
        at::empty(std::vector<int64_t>(static_cast<size_t>(table.tensors[i].dim()), 0), at::kFloat);
    tensors = shielded;
  }
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("pyparam::fill_", "").typed<FillOp>();
  return op.call(tensors, kinds, parameters, static_cast<int64_t>(seed), streams, offsets, strides,
                 moments);
}

// A glob of one word: the name itself, or with a star before it, after it, or both.
struct Word {
  std::string text;
  bool open_before, open_after;

  bool matches(std::string_view name) const {
    if (open_before && open_after) return name.find(text) != std::string_view::npos;
    if (name.size() < text.size()) return false;
    if (open_before) return name.substr(name.size() - text.size()) == text;
    return open_after ? name.substr(0, text.size()) == text : name == text;
  }
};

// The index of the first word that matches each name of the table, -1 where none does.
std::vector<int64_t> assign_words(const ParamTable& table,
                                  const std::vector<std::tuple<Name, bool, bool>>& words) {
  py::gil_scoped_release released;
  std::vector<Word> all;
  for (const auto& [text, before, after] : words) all.push_back({text.text, before, after});
  std::vector<int64_t> first(table.size());
  at::parallel_for(0, static_cast<int64_t>(table.size()), 1 << 16, [&](int64_t begin, int64_t end) {
    NameColumn::Reader names(table.names);
    for (int64_t i = begin; i < end; ++i) {
      const std::string_view name = names[static_cast<size_t>(i)];
      const auto found =
          std::find_if(all.begin(), all.end(), [&](const Word& w) { return w.matches(name); });
      first[i] = found == all.end() ? -1 : found - all.begin();
    }
  });
  return first;
}

// Numbers what is filled alike: the distinct (pick, dtype, device, shape) of a table's tensors in
// order of appearance. Gives the class of each tensor, and the index of each class's first. A
// tensor that is not plain memory, or has none (a lazy module's looks like that), is a class of its
// own.
std::pair<std::vector<int64_t>, std::vector<int64_t>> fill_classes(
    const ParamTable& table, const std::vector<int64_t>& picks) {
  if (picks.size() != table.size())
    throw py::value_error("fill_classes: picks and the table differ in length");
  py::gil_scoped_release released;
  std::vector<int64_t> class_of, first;
  class_of.reserve(table.size());
  std::unordered_map<std::string, int64_t> known;
  std::string key;
  for (size_t i = 0; i < table.size(); ++i) {
    if (i + 8 < table.size()) __builtin_prefetch(table.tensors[i + 8].unsafeGetTensorImpl());
    const at::Tensor& t = table.tensors[i];
    if (t.layout() != at::kStrided || t.is_nested() || t.key_set().has(c10::DispatchKey::Python) ||
        !t.unsafeGetTensorImpl()->has_storage() || t.numel() == 0) {
      class_of.push_back(static_cast<int64_t>(first.size()));
      first.push_back(static_cast<int64_t>(i));
      continue;
    }
    const at::IntArrayRef sizes = t.sizes();
    key.assign(reinterpret_cast<const char*>(&picks[i]), sizeof(int64_t));
    key.push_back(static_cast<char>(t.scalar_type()));
    key.push_back(static_cast<char>(t.device().type()));
    key.append(reinterpret_cast<const char*>(sizes.data()), sizes.size() * sizeof(int64_t));
    const auto [entry, fresh] = known.try_emplace(key, static_cast<int64_t>(first.size()));
    if (fresh) first.push_back(static_cast<int64_t>(i));
    class_of.push_back(entry->second);
  }
  return {std::move(class_of), std::move(first)};
}

std::array<uint32_t, 4> philox_block(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  const philox::Words w =
      philox::philox4x32_10({counter[0], counter[1], counter[2], counter[3]}, key[0], key[1]);
  return {w.w0, w.w1, w.w2, w.w3};
}

}  // namespace

void bind_init(py::module_& m) {
  m.def("fill_table", &fill_table, py::arg("table"), py::arg("rows"), py::arg("row_of"),
        py::arg("seed"), py::arg("moments"), py::arg("offsets") = std::vector<int64_t>(),
        py::arg("strides") = std::vector<int64_t>());
  m.def("assign_words", &assign_words, py::arg("table"), py::arg("words"));
  m.def("fill_classes", &fill_classes, py::arg("table"), py::arg("picks"));
  m.def(
      "count_words",
      [](const ParamTable& table,
         const std::vector<std::tuple<at::ScalarType, int64_t, uint64_t>>& words) {
        std::vector<cpu::WantedWord> wanted;
        for (const auto& [dtype, size, bits] : words) wanted.push_back({dtype, size, bits});
        return cpu::count_words(table.tensors, wanted);
      },
      py::arg("table"), py::arg("words"), py::call_guard<py::gil_scoped_release>());
  m.def("stream_of_name", &stream_of_name, py::arg("name"));
  m.def("philox4x32_10", &philox_block, py::arg("counter"), py::arg("key"));
}

}  // namespace pyparam
