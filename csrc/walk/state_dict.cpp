#include "walk/state_dict.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/autograd/python_variable.h>

#include <vector>

#include "walk/id_set.h"
#include "walk/items.h"
#include "walk/path.h"

namespace pyparam::walk {

namespace {

// PyTorch's recursion with a stack of its own. Between calls of Python code (hooks, classes' own methods) nothing
// can change under it, so what it looked up stays true.
class StateDictBuilder {
 public:
  StateDictBuilder(PyObject* prefix, bool keep_vars) : root_prefix_(prefix), keep_vars_(keep_vars) {
    path_.assign(prefix);
    native_detach_ = !at::impl::torch_function_mode_enabled() && !c10::impl::TorchDispatchModeTLS::any_modes_set();
  }

  Ref build(PyObject* root, PyObject* destination) {
    Ref target = destination == Py_None ? new_destination() : Ref::borrow(destination);
    enter(root, target.get());
    for (;;) {
      Level& level = stack_.back();
      PyObject *key = nullptr, *child = nullptr;
      if (level.children.next(key, child)) {
        if (child == Py_None) continue;
        path_.truncate(level.path_length);
        path_.append_str(key);
        path_.append_ascii(".");
        const Ref kept = Ref::borrow(child);
        const ModuleView view(child);
        if (view.overridden(kStateDict) != 0) {
          call_state_dict(child, level.destination.get());
        } else {
          enter(child, level.destination.get());
        }
        continue;
      }
      path_.truncate(level.path_length);
      run_hooks(level);
      on_path_.erase(level.module.get());
      Level done = std::move(level);
      stack_.pop_back();
      if (stack_.empty()) return std::move(done.destination);
    }
  }

 private:
  struct Level {
    Ref module;
    Ref destination;
    Ref local_metadata;
    Items children;
    size_t path_length;
  };

  static Ref new_destination() {
    const Ref collections = Ref::checked(PyImport_ImportModule("collections"));
    const Ref ordered_dict = Ref::checked(PyObject_GetAttrString(collections.get(), "OrderedDict"));
    Ref made = Ref::checked(PyObject_CallNoArgs(ordered_dict.get()));
    const Ref metadata = Ref::checked(PyObject_CallNoArgs(ordered_dict.get()));
    if (PyObject_SetAttr(made.get(), names().metadata, metadata.get()) < 0) throw PythonError{};
    return made;
  }

  // Anything may have changed after Python code ran.
  template <typename Fn>
  auto python(const Fn& fn) {
    metadata_of_ = Ref();
    metadata_ = Ref();
    return pause_.resume(fn);
  }
  Ref call(PyObject* callable, std::initializer_list<PyObject*> arguments) {
    return python([&] {
      return Ref::checked(PyObject_Vectorcall(callable, std::data(arguments), arguments.size(), nullptr));
    });
  }
  PyObject* keep_vars() const { return keep_vars_ ? Py_True : Py_False; }

  void enter(PyObject* module, PyObject* destination) {
    if (!on_path_.insert(module)) {
      const Ref path = path_.str();
      PyErr_Format(PyExc_ValueError, "state_dict: the module with the prefix %R is its own ancestor; its state would never end",
                   path.get());
      throw PythonError{};
    }
    const Names& n = names();
    Level level{Ref::borrow(module), Ref::borrow(destination), Ref(), Items(), path_.size()};
    const ModuleView view(module);
    const bool own_save = view.overridden(kSaveToStateDict) != 0;
    const bool own_extra_state = (view.type.overridden & kGetExtraState) != 0;
    level.local_metadata = local_metadata(view);
    record_metadata(destination, level.local_metadata.get());

    const Ref pre_hooks = view.attribute(n.state_dict_pre_hooks);
    if (!empty(pre_hooks.get())) {
      const Ref prefix = path_.str();
      for_each_value(pre_hooks.get(), [&](PyObject* hook) { call(hook, {module, prefix.get(), keep_vars()}); });
    }
    if (own_save) {
      const Ref prefix = path_.str();
      const Ref save = Ref::checked(PyObject_GetAttr(module, n.save_to_state_dict));
      call(save.get(), {destination, prefix.get(), keep_vars()});
    } else {
      save(module, own_extra_state, destination);
    }
    level.children = Items::of_mapping(ModuleView(module).attribute(n.modules));
    stack_.push_back(std::move(level));
  }

  void save(PyObject* module, bool own_extra_state, PyObject* destination) {
    const Names& n = names();
    const ModuleView view(module);
    const Ref parameters = view.attribute(n.parameters);
    const Ref buffers = view.attribute(n.buffers);
    if (!empty(parameters.get())) save_members(parameters.get(), nullptr, destination);
    if (!empty(buffers.get())) {
      const Ref skipped = ModuleView(module).attribute(n.non_persistent);
      save_members(buffers.get(), skipped.get(), destination);
    }
    if (own_extra_state) {
      const Ref method = Ref::checked(PyObject_GetAttr(module, n.get_extra_state));
      const Ref state = call(method.get(), {});
      put(destination, n.state_dict_attr_suffix, state.get());
    }
  }

  void save_members(PyObject* mapping, PyObject* skipped, PyObject* destination) {
    Items items = Items::of_mapping(Ref::borrow(mapping));
    PyObject *key = nullptr, *value = nullptr;
    while (items.next(key, value)) {
      if (value == Py_None) continue;
      const Ref kept_key = Ref::borrow(key), kept_value = Ref::borrow(value);
      if (skipped != nullptr) {
        const int found = PySequence_Contains(skipped, key);
        if (found < 0) throw PythonError{};
        if (found == 1) continue;
      }
      const Ref saved = keep_vars_ ? Ref::borrow(value) : detach(value);
      put(destination, key, saved.get());
    }
  }

  Ref detach(PyObject* value) {
    if (native_detach_ && THPVariable_CheckExact(value)) {
      const at::Tensor& tensor = THPVariable_Unpack(value);
      if (!tensor.key_set().has(c10::DispatchKey::Python)) return Ref::checked(THPVariable_Wrap(tensor.detach()));
    }
    return python([&] { return Ref::checked(PyObject_CallMethodNoArgs(value, names().detach)); });
  }

  void put(PyObject* destination, PyObject* key, PyObject* value) {
    const Ref name = path_.followed_by("", key);
    if (PyObject_SetItem(destination, name.get(), value) < 0) throw PythonError{};
  }

  static Ref local_metadata(const ModuleView& view) {
    const Names& n = names();
    PyObject* in_instance = view.dict == nullptr ? nullptr : PyDict_GetItemWithError(view.dict, n.version);
    if (in_instance == nullptr && PyErr_Occurred() != nullptr) throw PythonError{};
    PyObject* in_class = view.type.state_version;
    const bool plain = in_instance == nullptr && in_class != nullptr && PyLong_CheckExact(in_class);
    const Ref version =
        plain ? Ref::borrow(in_class) : Ref::checked(PyObject_GetAttr(view.module, n.version));
    Ref made = Ref::checked(PyDict_New());
    if (PyDict_SetItem(made.get(), n.version_key, version.get()) < 0) throw PythonError{};
    return made;
  }

  // destination._metadata[prefix[:-1]] = local_metadata, where there is a _metadata.
  void record_metadata(PyObject* destination, PyObject* local) {
    if (metadata_of_.get() != destination) {
      metadata_of_ = Ref::borrow(destination);
      metadata_ = Ref::steal(PyObject_GetAttr(destination, names().metadata));
      if (!metadata_) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) throw PythonError{};
        PyErr_Clear();
      }
    }
    if (!metadata_) return;
    const Ref key = stack_.empty() ? Ref::checked(PyUnicode_Substring(root_prefix_, 0, std::max<Py_ssize_t>(0, PyUnicode_GetLength(root_prefix_) - 1)))
                                   : path_.str_without_last_byte();
    if (PyObject_SetItem(metadata_.get(), key.get(), local) < 0) throw PythonError{};
  }

  void call_state_dict(PyObject* module, PyObject* destination) {
    const Names& n = names();
    const Ref prefix = path_.str();
    const Ref method = Ref::checked(PyObject_GetAttr(module, n.state_dict));
    const Ref keywords = Ref::checked(PyDict_New());
    if (PyDict_SetItem(keywords.get(), n.destination, destination) < 0 ||
        PyDict_SetItem(keywords.get(), n.prefix, prefix.get()) < 0 ||
        PyDict_SetItem(keywords.get(), n.keep_vars, keep_vars()) < 0) {
      throw PythonError{};
    }
    python([&] { return Ref::checked(PyObject_VectorcallDict(method.get(), nullptr, 0, keywords.get())); });
  }

  void run_hooks(Level& level) {
    const Names& n = names();
    const Ref hooks = ModuleView(level.module.get()).attribute(n.state_dict_hooks);
    if (empty(hooks.get())) return;
    const Ref prefix = path_.str();
    for_each_value(hooks.get(), [&](PyObject* hook) {
      Ref result = call(hook, {level.module.get(), level.destination.get(), prefix.get(), level.local_metadata.get()});
      if (result.get() == Py_None) return;
      const Ref from_public_api = Ref::steal(PyObject_GetAttr(hook, n.from_public_api));
      if (!from_public_api) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) throw PythonError{};
        PyErr_Clear();
      }
      const int is_public = from_public_api ? PyObject_IsTrue(from_public_api.get()) : 0;
      if (is_public < 0) throw PythonError{};
      if (is_public == 1) {
        PyErr_SetString(PyExc_RuntimeError, "state_dict post-hook must return None");
        throw PythonError{};
      }
      level.destination = std::move(result);
    });
  }

  static bool empty(PyObject* mapping) { return PyDict_Check(mapping) && PyDict_GET_SIZE(mapping) == 0; }

  template <typename Fn>
  void for_each_value(PyObject* mapping, const Fn& fn) {
    const Ref view = Ref::checked(PyObject_CallMethodNoArgs(mapping, names().values));
    const Ref iterator = Ref::checked(PyObject_GetIter(view.get()));
    while (PyObject* value = PyIter_Next(iterator.get())) fn(Ref::steal(value).get());
    if (PyErr_Occurred() != nullptr) throw PythonError{};
  }

  GcPause pause_;
  PyObject* root_prefix_;
  bool keep_vars_;
  bool native_detach_;  // no mode wants to see a detach
  Path path_;           // the prefix: with its trailing dot, or whatever the caller gave
  std::vector<Level> stack_;
  IdSet on_path_;
  Ref metadata_of_, metadata_;
};

}  // namespace

Ref state_dict(PyObject* module, PyObject* destination, PyObject* prefix, bool keep_vars) {
  return StateDictBuilder(prefix, keep_vars).build(module, destination);
}

}  // namespace pyparam::walk
