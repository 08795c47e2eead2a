#include "walk/plain_walk.h"

#include <algorithm>
#include <array>
#include <unordered_map>

namespace pyparam::walk {

namespace {

// Enough to keep the processor's miss queue full, few enough for the first-level cache.
constexpr size_t kBatch = 48;

PYPARAM_INLINE void prefetch_object(PyObject* object) {
  prefetch(object);
  // CPython 3.11 and later keep the pointer to an instance's dict in front of the object.
  prefetch(reinterpret_cast<const char*>(object) - 32);
}

PYPARAM_INLINE void prefetch_entries(PyObject* dict) {
  if (PyDict_GET_SIZE(dict) == 0) return;
  const auto* keys = reinterpret_cast<const char*>(reinterpret_cast<PyDictObject*>(dict)->ma_keys);
  prefetch(keys);
  prefetch(keys + 64);
}

// Reads the entries that are not None and not in `skipped`, a set of strs or null.
void read_members(PyObject* mapping, PyObject* skipped, PlainWalk::Members& out) {
  out.first.push_back(static_cast<uint32_t>(out.all.size()));
  if (PyDict_GET_SIZE(mapping) == 0) return;
  for_each_entry(mapping, [&](PyObject* key, PyObject* value) {
    if (value == Py_None) return;
    if (skipped != nullptr && PySet_Contains(skipped, key) == 1) return;
    prefetch(value);
    out.all.push_back({key, value});
  });
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

std::unique_ptr<PlainWalk>& PlainWalk::Lease::spare() {
  static std::unique_ptr<PlainWalk> walk;  // under the GIL
  return walk;
}

void PlainWalk::clear() {
  modules_.clear();
  types_.clear();
  plain_.clear();
  type_of_.clear();
  type_at_.fill(0);
  unremarkable_.fill(nullptr);
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

// Finds what the next module's class has to do with the walk. False where it is not plain.
bool PlainWalk::read_type(PyTypeObject* type, const Wanted& wanted, bool root) {
  const auto is_plain = [&](const ModuleType& facts, unsigned asked) {
    return facts.plain_attributes && facts.identity_hash && (facts.overridden & asked) == 0 &&
           (!wanted.version ||
            (facts.state_version != nullptr && PyLong_CheckExact(facts.state_version)));
  };
  const unsigned always = wanted.methods_of_all | wanted.methods_of_class;
  uint32_t& at = type_at_[(reinterpret_cast<uintptr_t>(type) >> 5) % type_at_.size()];
  if (at >= types_.size() || types_[at].type != type) {
    const ModuleType* facts = plain_module_type(type);
    if (facts == nullptr) return false;
    at = static_cast<uint32_t>(types_.size());
    types_.push_back(*facts);
    plain_.push_back(is_plain(*facts, always | wanted.methods) ? 1 : 0);
  }
  type_of_.push_back(at);
  return plain_[at] != 0 || (root && !wanted.ask_root && is_plain(types_[at], always));
}

// Whether the instance itself has a method, or a `_version`, where only the class may have one.
bool PlainWalk::has_own_methods(PyObject* dict, const Wanted& wanted, bool root) {
  const unsigned all = wanted.methods | wanted.methods_of_all;
  const unsigned asked = root && !wanted.ask_root ? wanted.methods_of_all : all;
  const auto has_any = [&](unsigned methods) {
    for (unsigned bit = 0; bit < kMethods; ++bit) {
      if ((methods & (1u << bit)) != 0 && find_str(dict, method_name(bit)) != nullptr) return true;
    }
    return wanted.version && find_str(dict, names().version) != nullptr;
  };
  const void* shared = shared_keys(dict);
  if (shared == nullptr) return has_any(asked);
  const void*& known =
      unremarkable_[(reinterpret_cast<uintptr_t>(shared) >> 6) % unremarkable_.size()];
  if (known == shared) return false;
  bool among_keys = wanted.version && shared_keys_have(shared, names().version);
  for (unsigned bit = 0; bit < kMethods && !among_keys; ++bit)
    among_keys = (all & (1u << bit)) != 0 && shared_keys_have(shared, method_name(bit));
  if (among_keys) return has_any(asked);
  known = shared;
  return false;
}

bool PlainWalk::read_batch(size_t begin, size_t end, const Wanted& wanted, Index& seen) {
  const Names& n = names();
  const size_t count = end - begin;
  std::array<PyObject*, kBatch> dicts;
  // Of each module `_modules`, and where wanted `_parameters` and `_buffers`.
  std::array<std::array<PyObject*, 3>, kBatch> mappings;
  const size_t of_parameters = 1, of_buffers = wanted.parameters ? 2 : 1;
  const size_t kinds = of_buffers + (wanted.buffers ? 1 : 0);
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
    const bool root = begin + i == 0;
    if (!has_str_keys(dicts[i]) || !read_type(Py_TYPE(modules_[begin + i]), wanted, root) ||
        has_own_methods(dicts[i], wanted, root)) {
      return false;
    }
    mappings[i][0] = hints_.modules.find(dicts[i], n.modules);
    if (wanted.parameters)
      mappings[i][of_parameters] = hints_.parameters.find(dicts[i], n.parameters);
    if (wanted.buffers) mappings[i][of_buffers] = hints_.buffers.find(dicts[i], n.buffers);
    for (size_t k = 0; k < kinds; ++k) {
      if (mappings[i][k] == nullptr) return false;
      prefetch(mappings[i][k]);
    }
    for (size_t e = 0; wants_empty && e < empty[i].size(); ++e) {
      empty[i][e] = hints_.empty[e].find(dicts[i], wanted.empty[e]);
      if (empty[i][e] == nullptr) return false;
      prefetch(empty[i][e]);
    }
  }
  for (size_t i = 0; i < count; ++i) {
    for (size_t k = 0; k < kinds; ++k) {
      if (!PyDict_CheckExact(mappings[i][k])) return false;
      prefetch_entries(mappings[i][k]);
    }
    for (size_t e = 0; wants_empty && e < empty[i].size(); ++e) {
      if (!is_empty_dict(empty[i][e])) return false;
    }
  }
  for (size_t i = 0; i < count; ++i) {
    // Two modules can have one dict: copy.copy(module) makes such a pair.
    const bool own_dict = Py_REFCNT(dicts[i]) == 1;
    bool aliased = !own_dict;
    for (size_t k = 0; k < kinds; ++k) {
      if (!has_str_keys(mappings[i][k])) return false;
      if (k > 0) aliased |= Py_REFCNT(mappings[i][k]) > 1;
    }
    if (wanted.parameters) read_members(mappings[i][of_parameters], nullptr, parameters_);
    if (wanted.buffers) {
      PyObject* buffers = mappings[i][of_buffers];
      PyObject* skipped = nullptr;
      if (wanted.persistent && PyDict_GET_SIZE(buffers) != 0) {
        skipped = hints_.non_persistent.find(dicts[i], n.non_persistent);
        if (skipped == nullptr || !PySet_CheckExact(skipped) || !holds_strs(skipped)) return false;
        if (PySet_GET_SIZE(skipped) == 0) skipped = nullptr;
      }
      read_members(buffers, skipped, buffers_);
    }
    aliased_members_ |= aliased;
    read_children(mappings[i][0], !own_dict || Py_REFCNT(mappings[i][0]) > 1);
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

void PlainWalk::read_children(PyObject* mapping, bool aliased) {
  first_child_.push_back(static_cast<uint32_t>(children_.size()));
  if (PyDict_GET_SIZE(mapping) == 0) return;
  for_each_entry(mapping, [&](PyObject* key, PyObject* value) {
    if (value == Py_None) return;
    prefetch_object(value);
    found_.push_back({value, static_cast<uint32_t>(children_.size()), aliased});
    children_.push_back({key, 0});
  });
}

bool PlainWalk::has_dotted_children() const {
  return std::any_of(children_.begin(), children_.end(), [](const Child& child) {
    return PyUnicode_FindChar(child.key, '.', 0, PyUnicode_GET_LENGTH(child.key), 1) != -1;
  });
}

bool PlainWalk::has_child(uint32_t module, std::string_view name) {
  PyObject* children = hints_.modules.find(instance_dict(modules_[module]), names().modules);
  const Ref key = Ref::checked(
      PyUnicode_DecodeUTF8(name.data(), static_cast<Py_ssize_t>(name.size()), "surrogatepass"));
  return PyDict_Contains(children, key.get()) == 1;
}

}  // namespace pyparam::walk
