#include "walk/live_index.h"

#include <array>
#include <cstring>
#include <unordered_map>

#include "walk/id_set.h"
#include "walk/plain_walk.h"

#if PY_VERSION_HEX >= 0x030C0000
#define PYPARAM_WATCHES_DICTS 1
#else
#define PYPARAM_WATCHES_DICTS 0
#endif

namespace pyparam::walk {

namespace {

#if PYPARAM_WATCHES_DICTS

// Changes seen so far of any watched dict, of whichever model.
uint64_t events = 0;

// Of an instance's dict only some entries matter: `training` changes all the time.
bool matters(PyObject* key) {
  const Names& n = names();
  if (key == nullptr || !PyUnicode_CheckExact(key)) return true;
  for (PyObject* name : {n.modules, n.parameters, n.buffers}) {
    if (key == name || PyUnicode_Compare(key, name) == 0) return true;
  }
  for (unsigned bit = 0; bit < kMethods; ++bit) {
    if (key == method_name(bit) || PyUnicode_Compare(key, method_name(bit)) == 0) return true;
  }
  return false;
}

int instance_changed(PyDict_WatchEvent event, PyObject*, PyObject* key, PyObject*) {
  const bool of_one_key = event == PyDict_EVENT_ADDED || event == PyDict_EVENT_MODIFIED ||
                          event == PyDict_EVENT_DELETED;
  if (!of_one_key || matters(key)) ++events;
  return 0;
}

int members_changed(PyDict_WatchEvent, PyObject*, PyObject*, PyObject*) {
  ++events;
  return 0;
}

// An assignment to `__class__` changes no dict. The interpreter tells its audit hooks of it (before
// it is done), and of nothing else that matters here.
int class_changes(const char* event, PyObject* args, void*) {
  if (std::strcmp(event, "object.__setattr__") != 0) return 0;
  PyObject* name =
      PyTuple_Check(args) && PyTuple_GET_SIZE(args) == 3 ? PyTuple_GET_ITEM(args, 1) : nullptr;
  if (name == nullptr || !PyUnicode_Check(name) ||
      PyUnicode_CompareWithASCIIString(name, "__class__") == 0) {
    ++events;
  }
  return 0;
}

// Whether assignments to `__class__` are noticed: another audit hook may have kept ours out, so it
// is tried. A hook stays for as long as the process lives, and makes whatever is audited (`id`,
// `open`) some tens of nanoseconds slower; so it is added with the first index.
bool notices_classes() {
  static const bool does = [] {
    if (PySys_AddAuditHook(class_changes, nullptr) < 0) PyErr_Clear();
    const Ref base = Ref::checked(
        PyObject_CallFunction(reinterpret_cast<PyObject*>(&PyType_Type), "s(){}", "_Audited"));
    const Ref made = Ref::checked(PyObject_CallNoArgs(base.get()));
    const uint64_t before = events;
    if (PyObject_SetAttrString(made.get(), "__class__", base.get()) < 0) throw PythonError{};
    return events != before;
  }();
  return does;
}

// The watcher of a callback, -1 where the interpreter has none left.
int watcher(PyDict_WatchCallback callback) {
  const int id = PyDict_AddWatcher(callback);
  if (id < 0) PyErr_Clear();
  return id;
}

int instance_watcher() {
  static const int id = watcher(instance_changed);
  return id;
}
int members_watcher() {
  static const int id = watcher(members_changed);
  return id;
}

// Whether a watched dict tells of attributes that are set and deleted, and not of items alone:
// CPython 3.13.0 does not while their values lie in the instance itself. So it is tried.
bool notices_attributes() {
  static const bool does = [] {
    const Ref type = Ref::checked(
        PyObject_CallFunction(reinterpret_cast<PyObject*>(&PyType_Type), "s(){}", "_Watched"));
    const Ref made = Ref::checked(PyObject_CallNoArgs(type.get()));
    if (PyObject_SetAttr(made.get(), names().parameters, Py_None) < 0) throw PythonError{};
    const Ref dict = Ref::checked(PyObject_GenericGetDict(made.get(), nullptr));
    if (PyDict_Watch(instance_watcher(), dict.get()) < 0) throw PythonError{};
    bool all = true;
    for (PyObject* value : {Py_None, Py_True, static_cast<PyObject*>(nullptr)}) {
      const uint64_t before = events;
      if (PyObject_SetAttr(made.get(), names().modules, value) < 0) throw PythonError{};
      all = all && events != before;
    }
    return all;
  }();
  return does;
}

#else

uint64_t tag_of(PyObject* dict) {
  return dict == nullptr ? 0 : reinterpret_cast<PyDictObject*>(dict)->ma_version_tag;
}

// All dicts draw their tags from one counter: a dict of our own, changed, tells whether any other
// one of the process has changed since it was asked before.
class TagCounter {
 public:
  TagCounter() : dict_(Ref::checked(PyDict_New())) {}

  // The tag that is given now. Runs no Python code, and allocates nothing but for the first time.
  uint64_t ask() {
    turned_ = !turned_;
    if (PyDict_SetItem(dict_.get(), names().modules, turned_ ? Py_True : Py_False) < 0)
      throw PythonError{};
    const uint64_t tag = tag_of(dict_.get());
    if (tag != asked_ + 1) only_asked_since_ = tag;
    asked_ = tag;
    return tag;
  }
  // Whether no dict has changed since this tag was given until the last time that it was asked.
  bool unchanged_since(uint64_t tag) const { return tag >= only_asked_since_; }

 private:
  Ref dict_;
  bool turned_ = false;
  uint64_t asked_ = 0, only_asked_since_ = 0;
};

TagCounter& tag_counter() {
  static auto* const one = new TagCounter;  // never destroyed: the interpreter may be gone by then
  return *one;
}

#endif

unsigned version_tag_now(PyTypeObject* type) {
  const ModuleType* facts = plain_module_type(type);
  return facts == nullptr ? 0 : facts->version_tag;
}

constexpr unsigned kOwnWalk = kNamedModules;
[[maybe_unused]] constexpr size_t kModulesAhead =
    12;  // modules whose memory is asked for ahead of use

}  // namespace

LiveIndex::LiveIndex(bool buffers) : buffers_(buffers) {
#if PYPARAM_WATCHES_DICTS
  // Both make objects, which may run the collector, before anything is read.
  (void)notices_classes();
  if (instance_watcher() >= 0) (void)notices_attributes();
#else
  tag_counter().ask();  // makes its dict, which may run the collector, before anything is read
#endif
}

Ref LiveIndex::read(PyObject* root) {
  root_ = nullptr;
  watched_.clear();
  const unsigned asked = kNamedParameters | kNamedMembers | (buffers_ ? kNamedBuffers : 0u);
  if (ModuleView(root).overridden(asked) != 0) return Ref();

  std::vector<Class> old_classes;  // dropped when the walk is over
  old_classes.swap(classes_);
  const GcPause pause;
  PlainWalk::Lease walk;
  PlainWalk::Wanted wanted;
  wanted.parameters = true;
  wanted.buffers = buffers_;
  wanted.methods = kOwnWalk;
  if (!walk->read(root, wanted)) return Ref();
  Ref listed = Ref::checked(PyDict_New());
  BorrowedIdSet seen;
  const auto list = [&](const PlainWalk::Members& members) {
    Path path;
    walk->for_each(path, /*remove_duplicate=*/true, [&](uint32_t module, Path& at) {
      for (uint32_t i = members.begin(module); i < members.end(module); ++i) {
        const auto [key, value] = members.all[i];
        if (walk->may_repeat(value) && !seen.insert(value)) continue;
        if (PyDict_SetItem(listed.get(), at.joined(key).get(), value) < 0) throw PythonError{};
      }
    });
  };
  list(walk->parameters());
  if (buffers_) list(walk->buffers());

#if PYPARAM_WATCHES_DICTS
  if (!notices_classes() || instance_watcher() < 0 || members_watcher() < 0) return Ref();
#endif
  std::unordered_map<PyTypeObject*, uint32_t> types;
  for (uint32_t i = 0; i < walk->modules().size(); ++i) {
    const ModuleType& type = walk->type(i);
    const auto [known, fresh] = types.try_emplace(type.type, static_cast<uint32_t>(types.size()));
    if (fresh) {
      classes_.push_back({Ref::borrow(reinterpret_cast<PyObject*>(type.type)), type.version_tag});
    }
    if (type.version_tag == 0 || !watch(walk->modules()[i], known->second)) {
      watched_.clear();
      return Ref();
    }
  }
#if PYPARAM_WATCHES_DICTS
  events_ = events;
#else
  seen_ = tag_counter().ask();
#endif
  root_ = root;
  return listed;
}

// Notes what a module's entries in the index depend on. False where that cannot be noticed.
bool LiveIndex::watch(PyObject* module, uint32_t type) {
  const Names& n = names();
  PyObject* dict = instance_dict(module);
  const std::array<PyObject*, 3> members{find_str(dict, n.modules), find_str(dict, n.parameters),
                                         buffers_ ? find_str(dict, n.buffers) : nullptr};
#if PYPARAM_WATCHES_DICTS
  // Another holder of the dict could keep it from being noticed that the module has a new one.
  if (Py_REFCNT(dict) > 1 || PyDict_Watch(instance_watcher(), dict) < 0) {
    PyErr_Clear();
    return false;
  }
  for (PyObject* one : members) {
    if (one != nullptr && PyDict_Watch(members_watcher(), one) < 0) {
      PyErr_Clear();
      return false;
    }
  }
  if (notices_attributes()) return true;
#endif
  watched_.modules.push_back(module);
  watched_.dicts.push_back(dict);
  watched_.types.push_back(type);
  watched_.members.insert(watched_.members.end(), members.begin(), members.end());
  return true;
}

// An instance's dict may have changed: whether none of what matters in it has.
bool LiveIndex::same_attributes(size_t module) const {
  const Names& n = names();
  PyObject* dict = watched_.dicts[module];
  PyObject* const* members = &watched_.members[3 * module];
  if (!has_str_keys(dict) || find_str(dict, n.modules) != members[0] ||
      find_str(dict, n.parameters) != members[1] ||
      (buffers_ && find_str(dict, n.buffers) != members[2])) {
    return false;
  }
  const unsigned root_only = kNamedParameters | kNamedMembers | (buffers_ ? kNamedBuffers : 0u);
  const unsigned methods = kOwnWalk | (module == 0 ? root_only : 0u);
  for (unsigned bit = 0; bit < kMethods; ++bit) {
    if ((methods & (1u << bit)) != 0 && find_str(dict, method_name(bit)) != nullptr) return false;
  }
  return true;
}

bool LiveIndex::is_current(PyObject* root) {
  if (root_ == nullptr || root != root_) return false;
  for (const Class& known : classes_) {
    auto* type = reinterpret_cast<PyTypeObject*>(known.type.get());
    if (version_tag_now(type) != known.version_tag) return false;
  }
#if PYPARAM_WATCHES_DICTS
  if (events_ != events) return false;
  // Columns that are empty where attributes are noticed. No dict of members has changed or gone, so
  // its modules are held by those that stand before them, once these are found to have the same
  // dicts.
  for (size_t i = 0; i < watched_.modules.size(); ++i) {
    if (instance_dict(watched_.modules[i]) != watched_.dicts[i] || !same_attributes(i))
      return false;
  }
  return true;
#else
  const uint64_t now = tag_counter().ask();
  // Then a module is all that may have changed: its class, or which dict it has.
  const bool same_dicts = tag_counter().unchanged_since(seen_);
  const size_t count = watched_.modules.size();
  const auto later = [this](PyObject* dict) { return tag_of(dict) > seen_; };
  for (size_t i = 0; i < count; ++i) {
    if (i + kModulesAhead < count) {
      const auto* module = reinterpret_cast<const char*>(watched_.modules[i + kModulesAhead]);
      prefetch(module - 32);
      prefetch(module);
      if (!same_dicts) {
        prefetch(watched_.dicts[i + kModulesAhead]);
        PyObject* const* members = &watched_.members[3 * (i + kModulesAhead)];
        for (size_t m = 0; m < 3; ++m) prefetch(members[m]);
      }
    }
    // The module is held by its parent, which stands before it and was found as it was.
    PyObject *const module = watched_.modules[i], *const dict = watched_.dicts[i];
    if (reinterpret_cast<PyObject*>(Py_TYPE(module)) != classes_[watched_.types[i]].type.get() ||
        instance_dict(module) != dict) {
      return false;
    }
    if (same_dicts) continue;
    if (later(dict) && !same_attributes(i)) return false;
    PyObject* const* members = &watched_.members[3 * i];
    if (later(members[0]) || later(members[1]) || later(members[2])) return false;
  }
  seen_ = now;
  return true;
#endif
}

Ref LiveIndex::find(PyObject* root, PyObject* name) const {
  if (!PyUnicode_CheckExact(name)) return Ref();
  const Names& n = names();
  const Py_ssize_t length = PyUnicode_GET_LENGTH(name);
  unsigned asked = kOwnWalk | kNamedParameters | kNamedMembers | (buffers_ ? kNamedBuffers : 0u);
  PyObject* module = root;  // held by the root, and nothing runs that could change that
  for (Py_ssize_t begin = 0;; asked = kOwnWalk) {
    const ModuleType* type = plain_module_type(Py_TYPE(module));
    PyObject* dict = instance_dict(module);
    if (type == nullptr || !type->is_module || !type->plain_attributes ||
        (type->overridden & asked) != 0 || dict == nullptr || !has_str_keys(dict)) {
      return Ref();
    }
    for (unsigned bit = 0; bit < kMethods; ++bit) {
      if ((asked & (1u << bit)) != 0 && find_str(dict, method_name(bit)) != nullptr) return Ref();
    }
    const auto entry = [&](PyObject* members, PyObject* key) -> PyObject* {
      PyObject* mapping = find_str(dict, members);
      if (mapping == nullptr || !PyDict_CheckExact(mapping) || !has_str_keys(mapping))
        return nullptr;
      PyObject* found = PyDict_GetItemWithError(mapping, key);
      if (found == nullptr && PyErr_Occurred() != nullptr) throw PythonError{};
      return found == Py_None ? nullptr : found;
    };
    const Py_ssize_t dot = PyUnicode_FindChar(name, '.', begin, length, 1);
    if (dot == -2) throw PythonError{};
    const Ref key = begin == 0 && dot == -1
                        ? Ref::borrow(name)
                        : Ref::checked(PyUnicode_Substring(name, begin, dot < 0 ? length : dot));
    if (dot < 0) {
      PyObject* found = entry(n.parameters, key.get());
      if (found == nullptr && buffers_) found = entry(n.buffers, key.get());
      return Ref::borrow(found);
    }
    module = entry(n.modules, key.get());
    if (module == nullptr) return Ref();
    begin = dot + 1;
  }
}

}  // namespace pyparam::walk
