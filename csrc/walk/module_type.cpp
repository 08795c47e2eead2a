#include "walk/module_type.h"

#include <array>
#include <utility>
#include <vector>

#include "walk/str_dict.h"

namespace pyparam::walk {

namespace {

PyObject* interned(const char* text) {
  PyObject* made = PyUnicode_InternFromString(text);
  if (made == nullptr) throw PythonError{};
  return made;
}

// Functions that are nn.Module's own, a list a method; the last list is of versioned loads. Never
// destroyed: the interpreter may be gone by then.
std::array<std::vector<Ref>, kMethods + 1>& known_methods() {
  static auto* known = new std::array<std::vector<Ref>, kMethods + 1>;
  return *known;
}

PyTypeObject* module_class = nullptr;  // nn.Module
PyObject* other_kinds = nullptr;       // a tuple of classes; null until it is told

constexpr size_t kCacheSize = 512;

std::array<ModuleType, kCacheSize>& cache() {
  static std::array<ModuleType, kCacheSize> types;
  return types;
}

// 0 where CPython has no tag for the class, which then cannot be remembered.
unsigned version_tag_of(PyTypeObject* type) {
#if PY_VERSION_HEX < 0x030C0000
  if (!PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG)) return 0;
#endif
  return type->tp_version_tag;
}

bool is_known(unsigned bit, PyObject* function) {
  for (const Ref& known : known_methods()[bit]) {
    if (known.get() == function) return true;
  }
  return false;
}

// Whether a look-up in the class compares plain strs only. Classes made in C have no other keys.
bool has_plain_namespace(PyTypeObject* type) {
  PyObject* bases = type->tp_mro;
  if (bases == nullptr) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(bases); ++i) {
    auto* base = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(bases, i));
    if (PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE) &&
        (base->tp_dict == nullptr || !has_str_keys(base->tp_dict))) {
      return false;
    }
  }
  return true;
}

bool is_of_no_other_kind(PyTypeObject* type) {
  if (other_kinds == nullptr || _PyType_Lookup(type, names().own_table) != nullptr ||
      _PyType_Lookup(type, names().fspath) != nullptr) {
    return false;
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(other_kinds); ++i) {
    auto* other = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(other_kinds, i));
    if (PyType_IsSubtype(type, other) != 0) return false;
  }
  return true;
}

ModuleType describe(PyTypeObject* type) {
  const Names& n = names();
  const Ref held = Ref::borrow(reinterpret_cast<PyObject*>(type));
  ModuleType facts;
  facts.type = type;
  // A look-up in the class also gives it its version tag.
  facts.plain_attributes =
      _PyType_Lookup(type, n.modules) == nullptr && _PyType_Lookup(type, n.parameters) == nullptr &&
      _PyType_Lookup(type, n.buffers) == nullptr &&
      _PyType_Lookup(type, n.non_persistent) == nullptr &&
      _PyType_Lookup(type, n.getattribute) == _PyType_Lookup(&PyBaseObject_Type, n.getattribute);
  facts.is_module = module_class != nullptr && PyType_IsSubtype(type, module_class) != 0;
  facts.is_module_alone = facts.is_module && is_of_no_other_kind(type);
  facts.identity_hash = type->tp_hash == PyBaseObject_Type.tp_hash;
  for (unsigned bit = 0; bit < kMethods; ++bit) {
    if (!is_known(bit, _PyType_Lookup(type, method_name(bit)))) facts.overridden |= 1u << bit;
  }
  if (is_known(kMethods, _PyType_Lookup(type, n.load_from_state_dict))) {
    facts.versioned_load = true;
    facts.overridden &= ~static_cast<unsigned>(kLoadFromStateDict);
  }
  facts.state_version = _PyType_Lookup(type, n.version);
  facts.version_tag = version_tag_of(type);
  return facts;
}

}  // namespace

const Names& names() {
  static const Names made = [] {
    Names n{};
    n.modules = interned("_modules");
    n.parameters = interned("_parameters");
    n.buffers = interned("_buffers");
    n.non_persistent = interned("_non_persistent_buffers_set");
    n.items = interned("items");
    n.version = interned("_version");
    n.version_key = interned("version");
    n.metadata = interned("_metadata");
    n.named_modules = interned("named_modules");
    n.named_parameters = interned("named_parameters");
    n.named_buffers = interned("named_buffers");
    n.named_members = interned("_named_members");
    n.state_dict = interned("state_dict");
    n.save_to_state_dict = interned("_save_to_state_dict");
    n.get_extra_state = interned("get_extra_state");
    n.state_dict_hooks = interned("_state_dict_hooks");
    n.state_dict_pre_hooks = interned("_state_dict_pre_hooks");
    n.from_public_api = interned("_from_public_api");
    n.detach = interned("detach");
    n.values = interned("values");
    n.prefix = interned("prefix");
    n.destination = interned("destination");
    n.keep_vars = interned("keep_vars");
    n.getattribute = interned("__getattribute__");
    n.state_dict_attr_suffix = interned("_extra_state");
    n.add = interned("add");
    n.load_from_state_dict = interned("_load_from_state_dict");
    n.set_extra_state = interned("set_extra_state");
    n.load_state_dict_pre_hooks = interned("_load_state_dict_pre_hooks");
    n.load_state_dict_post_hooks = interned("_load_state_dict_post_hooks");
    n.setattr = interned("__setattr__");
    n.register_parameter = interned("register_parameter");
    n.register_buffer = interned("register_buffer");
    n.assign_to_params_buffers = interned("assign_to_params_buffers");
    n.is_param = interned("_is_param");
    n.is_buffer = interned("_is_buffer");
    n.own_table = interned("__pyparam_table__");
    n.fspath = interned("__fspath__");
    return n;
  }();
  return made;
}

PyObject* method_name(unsigned bit) {
  const Names& n = names();
  const std::array<PyObject*, kMethods> all{
      n.named_modules,   n.named_parameters,     n.named_buffers,
      n.named_members,   n.state_dict,           n.save_to_state_dict,
      n.get_extra_state, n.load_from_state_dict, n.set_extra_state,
      n.setattr,         n.register_parameter,   n.register_buffer};
  return all[bit];
}

namespace {

ModuleType& slot_of(PyTypeObject* type) {
  return cache()[(reinterpret_cast<uintptr_t>(type) >> 5) % kCacheSize];
}

bool describes(const ModuleType& facts, PyTypeObject* type) {
  return facts.type == type && facts.version_tag != 0 && facts.version_tag == version_tag_of(type);
}

}  // namespace

const ModuleType& module_type(PyTypeObject* type) {
  ModuleType& slot = slot_of(type);
  if (!describes(slot, type)) slot = describe(type);
  return slot;
}

const ModuleType* plain_module_type(PyTypeObject* type) {
  ModuleType& slot = slot_of(type);
  if (!describes(slot, type)) {
    if (!has_plain_namespace(type)) return nullptr;
    slot = describe(type);
  }
  return &slot;
}

void set_known_methods(PyObject* type, PyObject* functions) {
  if (module_class == nullptr) module_class = reinterpret_cast<PyTypeObject*>(Py_NewRef(type));
  const auto listed = [&](PyObject* name) {
    const Ref given = Ref::checked(PyObject_GetItem(functions, name));
    const Ref sequence = Ref::checked(PySequence_Tuple(given.get()));
    std::vector<Ref> made;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(sequence.get()); ++i)
      made.push_back(Ref::borrow(PyTuple_GET_ITEM(sequence.get(), i)));
    return made;
  };
  std::array<std::vector<Ref>, kMethods + 1> told;
  for (unsigned bit = 0; bit < kMethods; ++bit) told[bit] = listed(method_name(bit));
  told[kMethods] = listed(Ref::checked(PyUnicode_FromString("versioned_load")).get());
  std::swap(known_methods(), told);  // what was known goes when the new stands
  cache().fill(ModuleType{});
}

void set_other_kinds(PyObject* classes) {
  Ref told = Ref::checked(PySequence_Tuple(classes));
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(told.get()); ++i) {
    if (!PyType_Check(PyTuple_GET_ITEM(told.get(), i))) {
      PyErr_Format(PyExc_TypeError, "set_other_kinds: expected classes, got %R",
                   PyTuple_GET_ITEM(told.get(), i));
      throw PythonError{};
    }
  }
  const Ref before = Ref::steal(std::exchange(other_kinds, told.release()));
  cache().fill(ModuleType{});
}

PyObject* instance_dict(PyObject* object) {
  PyObject** slot = _PyObject_GetDictPtr(object);
  return slot == nullptr ? nullptr : *slot;
}

unsigned overridden_methods(const ModuleType& type, PyObject* dict, unsigned asked) {
  unsigned found = type.overridden & asked;
  if (dict == nullptr) return found;
  for (unsigned bit = 0; bit < kMethods; ++bit) {
    if ((asked & (1u << bit)) == 0 || (found & (1u << bit)) != 0) continue;
    if (PyDict_GetItemWithError(dict, method_name(bit)) != nullptr) found |= 1u << bit;
    if (PyErr_Occurred() != nullptr) throw PythonError{};
  }
  return found;
}

bool overrides(PyObject* module, const std::string& method) {
  for (unsigned bit = 0; bit < kMethods; ++bit) {
    if (PyUnicode_CompareWithASCIIString(method_name(bit), method.c_str()) != 0) continue;
    return overridden_methods(module_type(Py_TYPE(module)), instance_dict(module), 1u << bit) != 0;
  }
  PyErr_Format(PyExc_SystemError, "pyparam internal error, please report: no such method as %s",
               method.c_str());
  throw PythonError{};
}

}  // namespace pyparam::walk
