// What a walk has to know of a module's class, found out once a class and kept while the class
// stays as it is.
#pragma once

#include <string>

#include "walk/ref.h"

namespace pyparam::walk {

// Attribute and method names as interned strings; made once, when the module is imported.
struct Names {
  PyObject *modules, *parameters, *buffers, *non_persistent, *items, *version, *version_key,
      *metadata, *add;
  PyObject *named_modules, *named_parameters, *named_buffers, *named_members, *state_dict,
      *save_to_state_dict;
  PyObject *get_extra_state, *state_dict_hooks, *state_dict_pre_hooks, *from_public_api, *detach,
      *values;
  PyObject *prefix, *destination, *keep_vars, *getattribute, *state_dict_attr_suffix;
  PyObject *load_from_state_dict, *set_extra_state, *load_state_dict_pre_hooks,
      *load_state_dict_post_hooks;
  PyObject *setattr, *register_parameter, *register_buffer;
  PyObject *assign_to_params_buffers, *is_param, *is_buffer;
  PyObject *own_table, *fspath;
};
const Names& names();

// The methods of nn.Module that a class can make its own.
enum Method : unsigned {
  kNamedModules = 1u << 0,
  kNamedParameters = 1u << 1,
  kNamedBuffers = 1u << 2,
  kNamedMembers = 1u << 3,
  kStateDict = 1u << 4,
  kSaveToStateDict = 1u << 5,
  kGetExtraState = 1u << 6,
  kLoadFromStateDict = 1u << 7,
  kSetExtraState = 1u << 8,
  kSetAttr = 1u << 9,
  kRegisterParameter = 1u << 10,
  kRegisterBuffer = 1u << 11,
};
constexpr unsigned kMethods = 12;

struct ModuleType {
  PyTypeObject* type = nullptr;
  unsigned version_tag = 0;
  bool is_module = false;  // derives from nn.Module
  // And is a source of parameters as such, and of no other kind, which would come first.
  bool is_module_alone = false;
  // `_modules`, `_parameters` and `_buffers` are what stands in the instance's dict under these
  // names.
  bool plain_attributes = false;
  // Membership in a memo is identity (no __hash__ of the class's own).
  bool identity_hash = false;
  // Methods that are neither PyTorch's own nor ours.
  unsigned overridden = 0;
  // Its `_load_from_state_dict` is nn.Module's for state dicts of version 2 and later, and does
  // more for older ones: that of PyTorch's batch and instance norms.
  bool versioned_load = false;
  // The class attribute `_version`, borrowed; null where there is none.
  PyObject* state_version = nullptr;
};

// Facts about a class. The reference holds until the next call. Looking at a class for the first
// time may run Python code, where its namespace has keys that are no plain strs.
const ModuleType& module_type(PyTypeObject* type);

// The same where that runs no Python code; null where it might.
const ModuleType* plain_module_type(PyTypeObject* type);

// Makes known which class is nn.Module, and which functions count as nn.Module's own: PyTorch's,
// and those that install() puts there. `functions` maps a method's name to a sequence of function
// objects, and takes the place of what was told before; under "versioned_load" it has the
// `_load_from_state_dict` of PyTorch's norms.
void set_known_methods(PyObject* module_class, PyObject* functions);

// Makes known the classes whose instances are sources of another kind even where they are modules.
void set_other_kinds(PyObject* classes);

// The name of the method with this bit, interned.
PyObject* method_name(unsigned bit);

// The instance's __dict__, borrowed, or null where it has none.
PyObject* instance_dict(PyObject* object);

// The methods among `asked` that this instance does not take from nn.Module: through its class, or
// through an attribute of the instance itself (`model.state_dict = ...`).
unsigned overridden_methods(const ModuleType& type, PyObject* dict, unsigned asked);

// Whether the method of that name ("named_parameters", ...) is not nn.Module's own for this
// instance.
bool overrides(PyObject* module, const std::string& method);

}  // namespace pyparam::walk
