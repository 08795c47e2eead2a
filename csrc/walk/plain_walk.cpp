#include "walk/plain_walk.h"

#include <algorithm>
#include <array>
#include <unordered_map>

namespace pyparam::walk {

namespace {

// Enough to keep the processor's miss queue full, few enough for the first-level cache.
constexpr size_t kBatch = 48;

// Looks an interned name up in an instance's dict; a miss is no error.
PyObject* look_up(PyObject* dict, PyObject* name) {
  PyObject* found = PyDict_GetItemWithError(dict, name);
  if (found == nullptr && PyErr_Occurred() != nullptr) throw PythonError{};
  return found;
}

void prefetch_object(PyObject* object) {
  prefetch(object);
  // CPython 3.11 and later keep the pointer to an instance's dict in front of the object.
  prefetch(reinterpret_cast<const char*>(object) - 32);
}

void prefetch_entries(PyObject* dict) {
  if (PyDict_GET_SIZE(dict) == 0) return;
  const auto* keys = reinterpret_cast<const char*>(reinterpret_cast<PyDictObject*>(dict)->ma_keys);
  prefetch(keys);
  prefetch(keys + 64);
}

// Reads the entries that are not None. False where a key is no str, which only PyTorch's own path
// reports rightly.
bool read_members(PyObject* mapping, PlainWalk::Members& out) {
  out.first.push_back(static_cast<uint32_t>(out.all.size()));
  Py_ssize_t position = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (PyDict_Next(mapping, &position, &key, &value)) {
    if (value == Py_None) continue;
    if (!PyUnicode_CheckExact(key)) return false;
    prefetch(value);
    out.all.push_back({key, value});
  }
  return true;
}

}  // namespace

// The records of modules that more than one place may refer to.
class PlainWalk::Index {
 public:
  explicit Index(PyObject* root) : root_(root) {}

  // The record of `module`, or `fresh` where it is new. An object with one reference, which is an
  // entry of a dict that no other module has (not `aliased`), stands nowhere else and need not be
  // remembered.
  uint32_t find(PyObject* module, bool aliased, uint32_t fresh) {
    if (module == root_) return 0;
    if (Py_REFCNT(module) == 1 && !aliased) return fresh;
    return records_.try_emplace(module, fresh).first->second;
  }

 private:
  PyObject* root_;
  std::unordered_map<PyObject*, uint32_t> records_;
};

PlainWalk& PlainWalk::shared() {
  static PlainWalk walk;
  return walk;
}

void PlainWalk::clear() {
  constexpr size_t kKept = size_t{1} << 20;  // modules
  if (modules_.capacity() > kKept) *this = PlainWalk();
  modules_.clear();
  children_.clear();
  first_child_.clear();
  found_.clear();
  aliased_members_ = false;
  for (Members* members : {&parameters_, &buffers_}) {
    members->all.clear();
    members->first.clear();
  }
}

bool PlainWalk::read(PyObject* root, const Wanted& wanted) {
  Index seen(root);
  clear();
  modules_.push_back(root);
  for (size_t begin = 0; begin < modules_.size();) {
    const size_t end = std::min(begin + kBatch, modules_.size());
    if (!read_batch(begin, end, wanted, seen)) return false;
    begin = end;
  }
  first_child_.push_back(static_cast<uint32_t>(children_.size()));
  for (Members* members : {&parameters_, &buffers_}) {
    members->first.push_back(static_cast<uint32_t>(members->all.size()));
  }
  return true;
}

bool PlainWalk::read_batch(size_t begin, size_t end, const Wanted& wanted, Index& seen) {
  const Names& n = names();
  const size_t count = end - begin;
  std::array<PyObject*, kBatch> dicts, modules, parameters, buffers;
  std::array<std::array<PyObject*, 2>, kBatch> empty;  // filled where wanted
  const bool wants_empty = wanted.empty[0] != nullptr;
  for (size_t i = 0; i < count; ++i) prefetch_object(modules_[begin + i]);
  for (size_t i = 0; i < count; ++i) {
    dicts[i] = instance_dict(modules_[begin + i]);
    if (dicts[i] == nullptr) return false;
    prefetch(dicts[i]);
  }
  for (size_t i = 0; i < count; ++i) {
    const auto* dict = reinterpret_cast<PyDictObject*>(dicts[i]);
    prefetch(dict->ma_keys);
    const auto* values = reinterpret_cast<const char*>(dict->ma_values);
    // nn.Module.__init__ sets `_parameters` second and `_modules` seventeenth.
    if (values != nullptr) {
      prefetch(values + 8);
      if (wants_empty) prefetch(values + 8 * 8);
      prefetch(values + 8 * 16);
    }
  }
  for (size_t i = 0; i < count; ++i) {
    const ModuleView view(modules_[begin + i], dicts[i]);
    const bool may_own = begin + i == 0 && !wanted.ask_root;
    if (!view.type.plain_attributes || !view.type.identity_hash) return false;
    if (!may_own && view.overridden(wanted.methods) != 0) return false;
    if (wanted.accepts != nullptr && !wanted.accepts(view)) return false;
    modules[i] = look_up(dicts[i], n.modules);
    parameters[i] = wanted.parameters ? look_up(dicts[i], n.parameters) : modules[i];
    buffers[i] = wanted.buffers ? look_up(dicts[i], n.buffers) : modules[i];
    for (PyObject* mapping : {modules[i], parameters[i], buffers[i]}) {
      if (mapping == nullptr) return false;
      prefetch(mapping);
    }
    for (size_t e = 0; wants_empty && e < empty[i].size(); ++e) {
      empty[i][e] = look_up(dicts[i], wanted.empty[e]);
      if (empty[i][e] == nullptr) return false;
      prefetch(empty[i][e]);
    }
  }
  for (size_t i = 0; i < count; ++i) {
    for (PyObject* mapping : {modules[i], parameters[i], buffers[i]}) {
      if (!PyDict_CheckExact(mapping)) return false;
      prefetch_entries(mapping);
    }
    for (size_t e = 0; wants_empty && e < empty[i].size(); ++e) {
      if (!is_empty_dict(empty[i][e])) return false;
    }
  }
  for (size_t i = 0; i < count; ++i) {
    if (wanted.parameters && !read_members(parameters[i], parameters_)) return false;
    if (wanted.buffers && !read_members(buffers[i], buffers_)) return false;
    // Two modules can have one dict: copy.copy(module) makes such a pair.
    const bool own_dict = Py_REFCNT(dicts[i]) == 1;
    if (!own_dict || (wanted.parameters && Py_REFCNT(parameters[i]) > 1) ||
        (wanted.buffers && Py_REFCNT(buffers[i]) > 1)) {
      aliased_members_ = true;
    }
    if (!read_children(modules[i], !own_dict || Py_REFCNT(modules[i]) > 1)) return false;
  }
  for (const auto& [object, child, aliased] : found_) {
    const auto fresh = static_cast<uint32_t>(modules_.size());
    const uint32_t record = seen.find(object, aliased, fresh);
    if (record == fresh) modules_.push_back(object);
    children_[child].module = record;
  }
  found_.clear();
  return true;
}

bool PlainWalk::read_children(PyObject* mapping, bool aliased) {
  first_child_.push_back(static_cast<uint32_t>(children_.size()));
  Py_ssize_t position = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (PyDict_Next(mapping, &position, &key, &value)) {
    if (value == Py_None) continue;
    if (!PyUnicode_CheckExact(key)) return false;
    prefetch_object(value);
    found_.push_back({value, static_cast<uint32_t>(children_.size()), aliased});
    children_.push_back({key, 0});
  }
  return true;
}

}  // namespace pyparam::walk
