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

  // False at the end. A dict's pair is borrowed from it; a foreign one is held here until the next
  // call.
  bool next(PyObject*& key, PyObject*& value) {
    if (foreign_) return next_foreign(key, value);
    PyObject* dict = source_.get();
    if (used_ != PyDict_GET_SIZE(dict)) {
      used_ = -1;  // sticky, as in CPython
      PyErr_SetString(PyExc_RuntimeError, "dictionary changed size during iteration");
      throw PythonError{};
    }
    if (!PyDict_Next(dict, &position_, &key, &value)) return false;
    if (left_-- == 0) {
      PyErr_SetString(PyExc_RuntimeError, "dictionary keys changed during iteration");
      throw PythonError{};
    }
    return true;
  }

  int visit(visitproc visit, void* arg) const {
    if (const int stopped = source_.visit(visit, arg)) return stopped;
    return pair_.visit(visit, arg);
  }

 private:
  bool next_foreign(PyObject*& key, PyObject*& value) {
    PyObject* pair = PyIter_Next(source_.get());
    if (pair == nullptr) {
      if (PyErr_Occurred() != nullptr) throw PythonError{};
      return false;
    }
    pair_ = Ref::steal(pair);
    if (!PyTuple_CheckExact(pair)) pair_ = Ref::checked(PySequence_Tuple(pair));
    if (PyTuple_GET_SIZE(pair_.get()) != 2) {
      PyErr_Format(PyExc_ValueError, "expected (name, value) pairs, got a tuple of %zd",
                   PyTuple_GET_SIZE(pair_.get()));
      throw PythonError{};
    }
    key = PyTuple_GET_ITEM(pair_.get(), 0);
    value = PyTuple_GET_ITEM(pair_.get(), 1);
    return true;
  }

  Ref source_;
  Ref pair_;
  Py_ssize_t position_ = 0;
  Py_ssize_t used_ = 0;
  Py_ssize_t left_ = 0;
  bool foreign_ = false;
};

inline bool is_empty_dict(PyObject* mapping) {
  return PyDict_Check(mapping) && PyDict_GET_SIZE(mapping) == 0;
}

// A module with its class's facts and its instance dict, looked up once.
struct ModuleView {
  PyObject* module = nullptr;  // borrowed
  ModuleType type;             // a copy: Python code that runs meanwhile may look at other classes
  PyObject* dict = nullptr;    // borrowed; null where there is none

  explicit ModuleView(PyObject* object)
      : module(object), type(module_type(Py_TYPE(object))), dict(instance_dict(object)) {}

  ModuleView(PyObject* object, PyObject* its_dict)
      : module(object), type(module_type(Py_TYPE(object))), dict(its_dict) {}

  // The attribute `name` ("_modules", "_parameters", ...), found in the instance's dict where that
  // is all that attribute access would do.
  Ref attribute(PyObject* name) const {
    if (type.plain_attributes && dict != nullptr) {
      PyObject* found = PyDict_GetItemWithError(dict, name);
      if (found != nullptr) return Ref::borrow(found);
      if (PyErr_Occurred() != nullptr) throw PythonError{};
    }
    return Ref::checked(PyObject_GetAttr(module, name));  // raises what PyTorch's own access raises
  }
  unsigned overridden(unsigned asked) const { return overridden_methods(type, dict, asked); }
};

}  // namespace pyparam::walk
