#include "walk/state_dict.h"

#include <vector>

#include "walk/detach.h"
#include "walk/id_set.h"
#include "walk/items.h"
#include "walk/path.h"
#include "walk/plain_walk.h"
#include "walk/tensor_prefetch.h"

namespace pyparam::walk {

namespace {

Ref new_destination() {
  Ref made = Ref::checked(PyODict_New());
  const Ref metadata = Ref::checked(PyODict_New());
  if (PyObject_SetAttr(made.get(), names().metadata, metadata.get()) < 0) throw PythonError{};
  return made;
}

// prefix[:-1]. Only the root's prefix, given by the caller, may end in something other than a dot.
Ref metadata_key(const Path& path, PyObject* root_prefix) {
  if (root_prefix == nullptr) return path.str_without_last_byte();
  const Py_ssize_t length = PyUnicode_GetLength(root_prefix);
  return Ref::checked(PyUnicode_Substring(root_prefix, 0, length == 0 ? 0 : length - 1));
}

Ref local_metadata(PyObject* version) {
  Ref made = Ref::checked(PyDict_New());
  if (PyDict_SetItem(made.get(), names().version_key, version) < 0) throw PythonError{};
  return made;
}

// self._version where that is an int of the class; null where attribute access has to find it.
PyObject* plain_version(const ModuleView& view) {
  PyObject* in_instance =
      view.dict() == nullptr ? nullptr : PyDict_GetItemWithError(view.dict(), names().version);
  if (in_instance == nullptr && PyErr_Occurred() != nullptr) throw PythonError{};
  PyObject* in_class = view.type().state_version;
  return in_instance == nullptr && in_class != nullptr && PyLong_CheckExact(in_class) ? in_class
                                                                                      : nullptr;
}

// Whether a buffer stands in the set of those that are not persistent; parameters have no such set.
bool is_skipped(PyObject* skipped, PyObject* key) {
  if (skipped == nullptr) return false;
  const int found = PySequence_Contains(skipped, key);
  if (found < 0) throw PythonError{};
  return found == 1;
}

// PyTorch's recursion with a stack of its own. Between calls of Python code (hooks, classes' own
// methods) nothing can change under it, so what it looked up stays true.
class StateDictBuilder {
 public:
  StateDictBuilder(PyObject* prefix, bool keep_vars) : root_prefix_(prefix), keep_vars_(keep_vars) {
    path_.assign(prefix);
  }

  Ref build(PyObject* root, PyObject* destination) {
    Ref target = destination == Py_None ? new_destination() : Ref::borrow(destination);
    enter(root, target.get());
    for (;;) {
      Level& level = stack_.back();
      Ref key, child;
      if (level.children.next(key, child)) {
        if (child.get() == Py_None) continue;
        path_.truncate(level.path_length);
        path_.push(key.get());
        const Ref destination_there = Ref::borrow(level.destination.get());
        if (ModuleView(child.get()).overridden(kStateDict) != 0) {
          call_state_dict(child.get(), destination_there.get());
        } else {
          enter(child.get(), destination_there.get());
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

  // Anything may have changed after Python code ran.
  template <typename Fn>
  auto python(const Fn& fn) {
    metadata_of_ = Ref();
    metadata_ = Ref();
    return pause_.resume(fn);
  }
  Ref call(PyObject* callable, std::initializer_list<PyObject*> arguments) {
    return python([&] {
      return Ref::checked(
          PyObject_Vectorcall(callable, std::data(arguments), arguments.size(), nullptr));
    });
  }
  PyObject* keep_vars() const { return keep_vars_ ? Py_True : Py_False; }

  void enter(PyObject* module, PyObject* destination) {
    if (!on_path_.insert(module)) {
      const Ref path = path_.str();
      PyErr_Format(PyExc_ValueError,
                   "state_dict: the module with the prefix %R is its own ancestor; its state would "
                   "never end",
                   path.get());
      throw PythonError{};
    }
    const Names& n = names();
    Level level{Ref::borrow(module), Ref::borrow(destination), Ref(), Items(), path_.size()};
    const ModuleView view(module);
    const bool own_save = view.overridden(kSaveToStateDict) != 0;
    const bool own_extra_state = (view.type().overridden & kGetExtraState) != 0;
    Ref version = Ref::borrow(plain_version(view));
    if (!version) version = Ref::checked(PyObject_GetAttr(module, n.version));
    level.local_metadata = local_metadata(version.get());
    record_metadata(destination, level.local_metadata.get());

    const Ref pre_hooks = view.attribute(n.state_dict_pre_hooks);
    if (!is_empty_dict(pre_hooks.get())) {
      const Ref prefix = path_.str();
      for_each_value(pre_hooks.get(),
                     [&](PyObject* hook) { call(hook, {module, prefix.get(), keep_vars()}); });
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
    if (!is_empty_dict(parameters.get())) save_members(parameters.get(), nullptr, destination);
    if (!is_empty_dict(buffers.get())) {
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
    Ref key, value;
    while (items.next(key, value)) {
      if (value.get() == Py_None || is_skipped(skipped, key.get())) continue;
      const Ref saved = keep_vars_ ? Ref::borrow(value.get()) : detach(value.get());
      put(destination, key.get(), saved.get());
    }
  }

  Ref detach(PyObject* value) {
    if (PyObject* detached = detacher_.detach(value)) return Ref::steal(detached);
    if (PyErr_Occurred() != nullptr) throw PythonError{};
    return python([&] { return Ref::checked(PyObject_CallMethodNoArgs(value, names().detach)); });
  }

  void put(PyObject* destination, PyObject* key, PyObject* value) {
    const Ref name = path_.joined(key);
    if (PyObject_SetItem(destination, name.get(), value) < 0) throw PythonError{};
  }

  // destination._metadata[prefix[:-1]] = local_metadata, where there is a _metadata.
  void record_metadata(PyObject* destination, PyObject* local) {
    if (metadata_of_.get() != destination) {
      metadata_of_ = Ref::borrow(destination);
      metadata_ = metadata_of(destination);
    }
    if (!metadata_) return;
    const Ref key = metadata_key(path_, stack_.empty() ? root_prefix_ : nullptr);
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
    python([&] {
      return Ref::checked(PyObject_VectorcallDict(method.get(), nullptr, 0, keywords.get()));
    });
  }

  void run_hooks(Level& level) {
    const Names& n = names();
    const Ref hooks = ModuleView(level.module.get()).attribute(n.state_dict_hooks);
    if (is_empty_dict(hooks.get())) return;
    const Ref prefix = path_.str();
    for_each_value(hooks.get(), [&](PyObject* hook) {
      Ref result = call(hook, {level.module.get(), level.destination.get(), prefix.get(),
                               level.local_metadata.get()});
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
  Detacher detacher_;
  Path path_{Path::Style::kPrefix, Path::Strs::kKeys};
  std::vector<Level> stack_;
  IdSet on_path_;
  Ref metadata_of_, metadata_;
};

// The whole state dict of a plain model, in bulk; null where the builder has to do it. Only into a
// new dict: what a caller's own may drop as entries are replaced could run Python code.
Ref plain_state_dict(PyObject* root, PyObject* prefix, bool keep_vars) {
  const GcPause pause;
  PlainWalk::Lease walk;
  PlainWalk::Wanted wanted;
  wanted.parameters = wanted.buffers = wanted.persistent = true;
  wanted.methods = kStateDict;
  wanted.ask_root = false;
  wanted.methods_of_all = kSaveToStateDict;
  wanted.methods_of_class = kGetExtraState;
  wanted.version = true;
  wanted.empty = {names().state_dict_hooks, names().state_dict_pre_hooks};
  if (!walk->read(root, wanted)) return Ref();

  const Detacher detacher;
  Ref target = new_destination();
  const Ref metadata = metadata_of(target.get());
  Path path(Path::Style::kPrefix, Path::Strs::kKeys);
  path.assign(prefix);
  bool plain = true;
  const auto save = [&](const PlainWalk::Members& members, uint32_t module, Path& at) {
    for (uint32_t i = members.begin(module); i < members.end(module) && plain; ++i) {
      prefetch_tensors(members.all, i);
      const auto [key, value] = members.all[i];
      const Ref saved = keep_vars ? Ref::borrow(value) : Ref::steal(detacher.detach_plain(value));
      plain = static_cast<bool>(saved);
      if (plain && PyODict_SetItem(target.get(), at.joined(key).get(), saved.get()) < 0)
        throw PythonError{};
    }
  };
  const bool ends = walk->for_each(path, /*remove_duplicate=*/false, [&](uint32_t index, Path& at) {
    if (!plain) return;
    save(walk->parameters(), index, at);
    save(walk->buffers(), index, at);
  });
  if (!plain || !ends) {
    if (PyErr_Occurred() != nullptr) throw PythonError{};
    return Ref();
  }
  // In a pass of its own: two large dicts that grow in turn push each other out of the cache.
  Ref local;
  PyObject* version = nullptr;
  path.assign(prefix);
  walk->for_each(path, /*remove_duplicate=*/false, [&](uint32_t index, Path& at) {
    PyObject* own_version = walk->type(index).state_version;
    if (own_version != version) {
      version = own_version;
      local = local_metadata(version);
    }
    const Ref copy = Ref::checked(PyDict_Copy(local.get()));
    const Ref key = metadata_key(at, index == 0 ? prefix : nullptr);
    if (PyODict_SetItem(metadata.get(), key.get(), copy.get()) < 0) throw PythonError{};
  });
  return target;
}

}  // namespace

Ref metadata_of(PyObject* state_dict) {
  Ref metadata = Ref::steal(PyObject_GetAttr(state_dict, names().metadata));
  if (!metadata) {
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) throw PythonError{};
    PyErr_Clear();
  }
  return metadata;
}

Ref state_dict(PyObject* module, PyObject* destination, PyObject* prefix, bool keep_vars) {
  if (destination == Py_None) {
    Ref plain = plain_state_dict(module, prefix, keep_vars);
    if (plain) return plain;
  }
  return StateDictBuilder(prefix, keep_vars).build(module, destination);
}

}  // namespace pyparam::walk
