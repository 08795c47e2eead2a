#include "walk/assign.h"

#include <torch/csrc/autograd/python_variable.h>

#include <array>

#include "walk/str_dict.h"
#include "walk/tensor.h"

namespace pyparam::walk {

namespace {

// Whether torch's isinstance() may call a plain tensor a Parameter or a Buffer: that goes by such
// an attribute. Looking for one makes no dict for a tensor that has none.
bool has_attribute(PyObject* tensor, PyObject* name) {
  PyObject* found = nullptr;
#if PY_VERSION_HEX >= 0x030D0000
  const int there = PyObject_GetOptionalAttr(tensor, name, &found);
#else
  const int there = _PyObject_LookupAttr(tensor, name, &found);
#endif
  const Ref held = Ref::steal(found);
  if (there < 0) throw PythonError{};
  return there > 0;
}

// The entry of a dict with exact strs as keys, borrowed; null where there is none.
PyObject* entry_of(PyObject* dict, PyObject* key) {
  PyObject* found = PyDict_GetItemWithError(dict, key);
  if (found == nullptr && PyErr_Occurred() != nullptr) throw PythonError{};
  return found;
}

bool is_exact_parameter(PyObject* object) {
  return Py_TYPE(object) == reinterpret_cast<PyTypeObject*>(ParameterClass);
}

bool is_plain_tensor(PyObject* object) {
  return Py_TYPE(object) == reinterpret_cast<PyTypeObject*>(THPVariableClass) &&
         !has_attribute(object, names().is_param) && !has_attribute(object, names().is_buffer);
}

bool has_plain_shape(const at::Tensor& tensor) {
  return tensor.defined() && !tensor.is_nested() &&
         !tensor.key_set().has(c10::DispatchKey::Python) &&
         !tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
}

bool may_require_grad(const at::Tensor& tensor) {
  return tensor.is_floating_point() || tensor.is_complex();
}

// torch.Tensor._make_subclass, which nn.Parameter of a plain tensor comes to.
PyObject* make_subclass() {
  static PyObject* const function = [] {
    PyObject* found = PyObject_GetAttrString(THPVariableClass, "_make_subclass");
    if (found == nullptr) throw PythonError{};
    return found;
  }();
  return function;
}

}  // namespace

bool Assigner::add(PyObject* dict, const ModuleType& type, bool parameter, PyObject* key,
                   PyObject* target, PyObject* source) {
  if (parameter ? !is_exact_parameter(target)
                : is_exact_parameter(target) || has_attribute(target, names().is_param)) {
    return false;
  }
  if (!is_plain_tensor(source) && !(parameter && is_exact_parameter(source))) return false;
  const at::Tensor &to = THPVariable_Unpack(target), &of = THPVariable_Unpack(source);
  if (!has_plain_shape(to) || !has_plain_shape(of) || to.sizes() != of.sizes()) return false;
  const bool requires_grad = to.requires_grad();
  if (is_exact_parameter(source) &&
      (of.is_inference() || of.grad_fn() != nullptr || (requires_grad && !may_require_grad(of)))) {
    return false;
  }
  // nn.Module's __setattr__ looks for another owner of the name, and for an attribute of it.
  const Names& n = names();
  PyObject* parameters = find_str(dict, n.parameters);
  PyObject* buffers = find_str(dict, n.buffers);
  PyObject* modules = find_str(dict, n.modules);
  PyObject* passing = find_str(dict, n.non_persistent);
  if (passing == nullptr || !PySet_CheckExact(passing) || !holds_strs(passing)) return false;
  for (PyObject* mapping : {parameters, buffers, modules}) {
    if (mapping == nullptr || !PyDict_CheckExact(mapping) || !has_str_keys(mapping)) return false;
  }
  PyObject* const members = parameter ? parameters : buffers;
  if (entry_of(modules, key) != nullptr ||
      entry_of(parameter ? buffers : parameters, key) != nullptr ||
      (parameter && (entry_of(dict, key) != nullptr || PySet_Contains(passing, key) != 0))) {
    return false;
  }
  if (_PyType_Lookup(type.type, key) != nullptr) return false;
  entries_.push_back({members, key, source, Ref(), parameter, requires_grad});
  return true;
}

bool Assigner::make() {
  for (Entry& entry : entries_) {
    if (!entry.parameter || is_exact_parameter(entry.source)) continue;
    const std::array<PyObject*, 3> arguments{ParameterClass, entry.source,
                                             entry.requires_grad ? Py_True : Py_False};
    PyObject* made =
        PyObject_Vectorcall(make_subclass(), arguments.data(), arguments.size(), nullptr);
    if (made == nullptr) {
      PyErr_Clear();
      return false;
    }
    entry.made = Ref::steal(made);
  }
  return true;
}

void Assigner::assign() {
  replaced_.reserve(entries_.size());
  for (PyObject* metadata : marked_) {
    if (PyObject_SetItem(metadata, names().assign_to_params_buffers, Py_True) < 0)
      throw PythonError{};
  }
  for (Entry& entry : entries_) {
    PyObject* value = entry.made ? entry.made.get() : entry.source;
    if (entry.parameter && !entry.made)
      THPVariable_Unpack(value).set_requires_grad(entry.requires_grad);
    replaced_.push_back(Ref::borrow(entry_of(entry.members, entry.key)));
    if (PyDict_SetItem(entry.members, entry.key, value) < 0) throw PythonError{};
  }
}

}  // namespace pyparam::walk
