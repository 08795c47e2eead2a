// One (key, value) pair after another out of whatever holds a module's entries.
#pragma once

#include "walk/module_type.h"

namespace pyparam::walk {

// Iterates over a dict in place, with the errors of a Python dict iterator ("changed size during
// iteration"), or over `.items()` of any other mapping (an OrderedDict, TorchScript's wrappers), or
// over any iterable of pairs.
class Items {
 public:
  Items() = default;
  // The pairs of `mapping`. An exact dict costs no Python call.
  static Items of_mapping(Ref mapping) {
    Items items;
    if (PyDict_CheckExact(mapping.get())) {
      items.used_ = items.left_ = PyDict_GET_SIZE(mapping.get());
      items.source_ = std::move(mapping);
      return items;
    }
    return of_pairs(Ref::checked(PyObject_CallMethodNoArgs(mapping.get(), names().items)));
  }
  static Items of_pairs(Ref iterable) {
    Items items;
    items.foreign_ = true;
    items.source_ = Ref::checked(PyObject_GetIter(iterable.get()));
    return items;
  }

  // False at the end. The pair is held: whatever the caller does next may run code that drops it.
  bool next(Ref& key, Ref& value) {
    if (foreign_) return next_foreign(key, value);
    PyObject* dict = source_.get();
    if (used_ != PyDict_GET_SIZE(dict)) {
      used_ = -1;  // sticky, as in CPython
      PyErr_SetString(PyExc_RuntimeError, "dictionary changed size during iteration");
      throw PythonError{};
    }
    PyObject *next_key = nullptr, *next_value = nullptr;
    if (!PyDict_Next(dict, &position_, &next_key, &next_value)) return false;
    if (left_-- == 0) {
      PyErr_SetString(PyExc_RuntimeError, "dictionary keys changed during iteration");
      throw PythonError{};
    }
    // Both are held before either of the old ones is dropped.
    Ref held_key = Ref::borrow(next_key), held_value = Ref::borrow(next_value);
    key = std::move(held_key);
    value = std::move(held_value);
    return true;
  }

  int visit(visitproc visit, void* arg) const { return source_.visit(visit, arg); }

 private:
  bool next_foreign(Ref& key, Ref& value) {
    Ref pair = Ref::steal(PyIter_Next(source_.get()));
    if (!pair) {
      if (PyErr_Occurred() != nullptr) throw PythonError{};
      return false;
    }
    if (!PyTuple_CheckExact(pair.get())) pair = Ref::checked(PySequence_Tuple(pair.get()));
    if (PyTuple_GET_SIZE(pair.get()) != 2) {
      PyErr_Format(PyExc_ValueError, "expected (name, value) pairs, got a tuple of %zd",
                   PyTuple_GET_SIZE(pair.get()));
      throw PythonError{};
    }
    key = Ref::borrow(PyTuple_GET_ITEM(pair.get(), 0));
    value = Ref::borrow(PyTuple_GET_ITEM(pair.get(), 1));
    return true;
  }

  Ref source_;
  Py_ssize_t position_ = 0;
  Py_ssize_t used_ = 0;
  Py_ssize_t left_ = 0;
  bool foreign_ = false;
};

inline bool is_empty_dict(PyObject* mapping) {
  return PyDict_Check(mapping) && PyDict_GET_SIZE(mapping) == 0;
}

// A module with its class's facts and its instance dict, looked up once. What it says may run
// Python code: a look-up in a dict compares keys, and a key may have an `__eq__` of its own.
class ModuleView {
 public:
  explicit ModuleView(PyObject* object)
      : module_(object),
        type_(module_type(Py_TYPE(object))),
        dict_(Ref::borrow(instance_dict(object))) {}

  // A copy: code that runs meanwhile may look at other classes.
  const ModuleType& type() const { return type_; }
  PyObject* dict() const { return dict_.get(); }  // null where there is none

  // The attribute `name` ("_modules", "_parameters", ...), found in the instance's dict where that
  // is all that attribute access would do.
  Ref attribute(PyObject* name) const {
    if (type_.plain_attributes && dict_) {
      Ref found = Ref::borrow(PyDict_GetItemWithError(dict_.get(), name));
      if (found) return found;
      if (PyErr_Occurred() != nullptr) throw PythonError{};
    }
    return Ref::checked(
        PyObject_GetAttr(module_, name));  // raises what PyTorch's own access raises
  }
  unsigned overridden(unsigned asked) const {
    return overridden_methods(type_, dict_.get(), asked);
  }

 private:
  PyObject* module_;  // the caller's
  ModuleType type_;
  Ref dict_;
};

}  // namespace pyparam::walk
