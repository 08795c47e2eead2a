// Bindings of the walk over nn.Module: definitions only.
#include "bindings/walk.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "bindings/given.h"
#include "bindings/held_table.h"
#include "bindings/share.h"
#include "table/copy.h"
#include "table/requires_grad.h"
#include "walk/access.h"
#include "walk/gradients.h"
#include "walk/items.h"
#include "walk/iterators.h"
#include "walk/live_index.h"
#include "walk/load_state_dict.h"
#include "walk/module_table.h"
#include "walk/module_type.h"
#include "walk/prefix_hash.h"
#include "walk/state_dict.h"
#include "walk/str_dict.h"

namespace py = pybind11;

namespace pyparam {

namespace {

using walk::Ref;

// Runs native walking code; a Python error it left set is raised by pybind11.
template <typename Fn>
auto raising(const Fn& fn) {
  try {
    return fn();
  } catch (const walk::PythonError&) {
    throw py::error_already_set();
  }
}

py::object owned(Ref ref) { return py::reinterpret_steal<py::object>(ref.release()); }

using Spans = std::vector<std::pair<uintptr_t, int64_t>>;

void copy_from(const std::vector<at::Tensor>& targets, const std::vector<at::Tensor>& sources,
               const Spans& mapped, int64_t batch_bytes) {
  check_copies(targets, sources);
  std::vector<Mapping> mappings;
  for (const auto& [address, bytes] : mapped)
    mappings.push_back({reinterpret_cast<const char*>(address), bytes});
  const py::gil_scoped_release without_gil;
  copy_all(targets, sources, mappings, batch_bytes);
}

py::object none_or(Ref ref) { return ref ? owned(std::move(ref)) : py::none(); }

// Whether nn.Module's own listings are what the module gives.
bool lists_as_module(const walk::ModuleView& view, bool buffers) {
  return view.overridden(walk::kNamedParameters | walk::kNamedMembers |
                         (buffers ? walk::kNamedBuffers : 0u)) == 0;
}

py::tuple walked(PyObject* module, bool buffers, bool remove_duplicate, bool owners) {
  walk::WalkedModule found = walk::walk_module(module, buffers, remove_duplicate, owners);
  return py::make_tuple(HeldTable(std::move(found.names), owned(std::move(found.tensors))),
                        none_or(std::move(found.owners)));
}

}  // namespace

void bind_walk(py::module_& m) {
  raising([&] {
    walk::check_dict_layout();
    walk::check_hash();
    walk::create_iterator_types(m.ptr());
    return 0;
  });

  raising([&] {
    walk::add_access_functions(m.ptr());
    return 0;
  });

  m.def("set_known_methods", [](const py::type& module_class, const py::dict& functions) {
    raising([&] {
      walk::set_known_methods(module_class.ptr(), functions.ptr());
      return 0;
    });
  });
  m.def("overrides", [](const py::object& module, const std::string& method) {
    return raising([&] { return walk::overrides(module.ptr(), method); });
  });
  m.def("set_other_kinds", [](const py::tuple& classes) {
    raising([&] {
      walk::set_other_kinds(classes.ptr());
      return 0;
    });
  });
  // None where the class has a listing of its own, which is to be asked.
  m.def(
      "walk_module",
      [](const py::object& module, bool buffers, bool remove_duplicate, bool owners) -> py::object {
        return raising([&]() -> py::object {
          if (!lists_as_module(walk::ModuleView(module.ptr()), buffers)) return py::none();
          return walked(module.ptr(), buffers, remove_duplicate, owners);
        });
      });
  // The native table of a module; None for that of a class with a listing of its own, and for any
  // source that is no module or also another one.
  m.def("table_of_module",
        [](const py::object& source, bool buffers, bool remove_duplicate) -> py::object {
          return raising([&]() -> py::object {
            const walk::ModuleView view(source.ptr());
            if (!view.type().is_module_alone || !lists_as_module(view, buffers)) return py::none();
            return walked(source.ptr(), buffers, remove_duplicate, false)[0];
          });
        });
  // With `ask`, None where the class has a state_dict of its own.
  m.def(
      "state_dict",
      [](const py::object& module, const py::object& destination, const py::str& prefix,
         bool keep_vars, bool ask) -> py::object {
        return raising([&]() -> py::object {
          if (ask && walk::ModuleView(module.ptr()).overridden(walk::kStateDict) != 0)
            return py::none();
          return owned(walk::state_dict(module.ptr(), destination.ptr(), prefix.ptr(), keep_vars));
        });
      });
  m.def("load_state_dict",
        [](const py::object& module, const py::object& state, bool strict, bool assign) {
          return raising([&] {
            return owned(walk::load_state_dict(module.ptr(), state.ptr(), strict, assign));
          });
        });
  m.def("match_state_dict", [](const py::object& module, const py::object& state) {
    return raising([&] { return owned(walk::match_state_dict(module.ptr(), state.ptr())); });
  });
  m.def("zero_grad", [](const py::object& module, bool set_to_none) {
    return raising([&] { return walk::zero_gradients(module.ptr(), set_to_none); });
  });
  m.def("set_requires_grad", &set_requires_grad);
  py::class_<walk::Pairs>(m, "Pairs")
      .def_readonly("unexpected", &walk::Pairs::unexpected)
      .def_property_readonly("conversions",
                             [](const walk::Pairs& pairs) {
                               return py::reinterpret_borrow<py::object>(pairs.conversions.get());
                             })
      .def("share_memory", [](const walk::Pairs& pairs) { return share_memory(pairs.targets); })
      .def(
          "copy",
          [](const walk::Pairs& pairs, const Spans& mapped, int64_t batch_bytes) {
            copy_from(pairs.targets, pairs.sources, mapped, batch_bytes);
          },
          py::arg("mapped"), py::arg("batch_bytes"))
      // The other way round: the table's tensors move towards the model's.
      .def(
          "lerp_sources",
          [](const walk::Pairs& pairs, double weight) {
            const py::gil_scoped_release without_gil;
            check_copies(pairs.sources, pairs.targets);
            lerp_all(pairs.sources, pairs.targets, weight);
          },
          py::arg("weight"));
  m.def("match_table", [](const py::object& module, const ParamTable& table) {
    return raising([&] { return walk::match_table(module.ptr(), table); });
  });
  m.def(
      "copy_tensors",
      [](const GivenList& targets, const GivenList& sources, const Spans& mapped,
         int64_t batch_bytes) { copy_from(targets.tensors, sources.tensors, mapped, batch_bytes); },
      py::arg("targets"), py::arg("sources"), py::arg("mapped") = Spans(),
      py::arg("batch_bytes") = int64_t{32} << 20);
  m.def(
      "lerp_tensors",
      [](const GivenList& targets, const GivenList& sources, double weight) {
        const py::gil_scoped_release without_gil;
        check_copies(targets.tensors, sources.tensors);
        lerp_all(targets.tensors, sources.tensors, weight);
      },
      py::arg("targets"), py::arg("sources"), py::arg("weight"));
  m.def(
      "odd_copies",
      [](const GivenList& targets, const GivenList& sources) {
        return odd_copies(targets.tensors, sources.tensors);
      },
      py::arg("targets"), py::arg("sources"));
  py::class_<walk::LiveIndex>(m, "LiveIndex")
      .def(py::init([](bool buffers) {
        return raising([&] { return std::make_unique<walk::LiveIndex>(buffers); });
      }))
      .def("read",
           [](walk::LiveIndex& index, const py::object& module) {
             return raising([&] { return none_or(index.read(module.ptr())); });
           })
      .def("is_current",
           [](walk::LiveIndex& index, const py::object& module) {
             return raising([&] { return index.is_current(module.ptr()); });
           })
      .def("find",
           [](const walk::LiveIndex& index, const py::object& module, const py::object& name) {
             return raising([&] { return none_or(index.find(module.ptr(), name.ptr())); });
           });
}

}  // namespace pyparam
