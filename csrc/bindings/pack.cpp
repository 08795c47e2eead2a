// Packed for Python: the state of a packed model as an opaque object, and what is asked of it.
#include "bindings/pack.h"

#include <torch/csrc/Exceptions.h>

#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "bindings/held_table.h"
#include "bindings/name.h"
#include "bindings/uninitialized.h"
#include "kernels/pack.h"

namespace py = pybind11;

namespace pyparam {
namespace {

using Flat = std::tuple<at::Device, at::ScalarType, at::Tensor>;

PackedState pack_table(const ParamTable& table, const std::vector<at::Tensor>& buffers,
                       bool grads) {
  std::vector<size_t> empties;
  for (size_t i = 0; i < table.size(); ++i) {
    if (table.tensors[i].layout() == at::kStrided && !table.tensors[i].is_nested() &&
        table.tensors[i].sym_numel() == 0) {
      empties.push_back(i);
    }
  }
  if (!empties.empty()) refuse_uninitialized("pack_", {table.tensors}, empties);
  const py::gil_scoped_release no_gil;
  return pack(table.tensors, buffers, grads);
}

std::vector<Flat> flats(const PackedState& state, bool grad) {
  std::vector<Flat> out;
  for (const PackedGroup& group : state.groups) {
    const at::Tensor& flat = grad ? group.flat_grad : group.flat;
    if (flat.defined()) out.emplace_back(flat.device(), flat.scalar_type(), flat);
  }
  return out;
}

// The names of parameters that have left their place, that are gone, and that are new. `names` is
// the packed table's, `now` the model's table of today.
std::vector<Name> broken(const PackedState& state, const ParamTable& packed,
                         const ParamTable& now) {
  std::unordered_map<std::string, size_t> index;
  std::vector<bool> known(now.size(), false);
  std::vector<Name> names;
  for (const PackedMember& member : state.members) {
    if (member.index < 0) continue;
    auto i = static_cast<size_t>(member.index);
    const auto name = packed.names[i];
    if (i >= now.size() || now.names[i] != name) {
      if (index.empty()) {
        for (size_t j = 0; j < now.size(); ++j) index.emplace(now.names[j], j);
      }
      const auto found = index.find(std::string(name));
      i = found == index.end() ? now.size() : found->second;
    }
    if (i < now.size()) known[i] = true;
    if (i >= now.size() || !in_place(member, packed.tensors[static_cast<size_t>(member.index)],
                                     now.tensors[i], state.grads))
      names.push_back({std::string(name)});
  }
  for (size_t j = 0; j < now.size(); ++j) {
    if (!known[j]) names.push_back({now.names[j]});
  }
  return names;
}

void unpack_table(PackedState& state, const ParamTable& packed,
                  const std::vector<at::Tensor>& buffers) {
  unpack(state, packed.tensors, buffers);
}

}  // namespace

void bind_pack(py::module_& m) {
  py::class_<PackedState>(m, "PackedState");
  m.def("pack_", torch::wrap_pybind_function(pack_table), py::arg("table"), py::arg("buffers"),
        py::arg("grads"));
  m.def("packed_flats", torch::wrap_pybind_function(flats), py::arg("state"), py::arg("grad"));
  m.def("packed_broken", torch::wrap_pybind_function(broken), py::arg("state"), py::arg("packed"),
        py::arg("now"));
  m.def("unpack_", torch::wrap_pybind_function(unpack_table), py::arg("state"), py::arg("packed"),
        py::arg("buffers"));
}

}  // namespace pyparam
