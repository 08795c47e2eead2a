// An extension module of its own that asks walk/str_dict, for tests/test_str_dict.py. LOOK_FIRST:
// whether the layout is checked, as at the import of the package; without, it counts as not the
// expected one.
#include "walk/str_dict.cpp"

namespace {

using namespace pyparam::walk;

PyObject* found(PyObject* value) { return Py_NewRef(value == nullptr ? Py_NotImplemented : value); }

PyObject* knows(PyObject*, PyObject*) { return PyBool_FromLong(layout::known); }

PyObject* str_keys(PyObject*, PyObject* dict) { return PyBool_FromLong(has_str_keys(dict)); }

PyObject* entries(PyObject*, PyObject* dict) {
  PyObject* out = PyList_New(0);
  for_each_entry(dict, [&](PyObject* key, PyObject* value) {
    const Ref pair = Ref::steal(PyTuple_Pack(2, key, value));
    PyList_Append(out, pair.get());
  });
  return out;
}

PyObject* strs(PyObject*, PyObject* set) { return PyBool_FromLong(holds_strs(set)); }

// (dict, interned name)
PyObject* find(PyObject*, PyObject* both) {
  return found(find_str(PyTuple_GET_ITEM(both, 0), PyTuple_GET_ITEM(both, 1)));
}

// (dicts, interned name): what one hint finds in each, one after the other.
PyObject* hinted(PyObject*, PyObject* both) {
  PyObject* dicts = PyTuple_GET_ITEM(both, 0);
  PyObject* out = PyList_New(0);
  NameHint hint;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(dicts); ++i) {
    const Ref value =
        Ref::steal(found(hint.find(PyList_GET_ITEM(dicts, i), PyTuple_GET_ITEM(both, 1))));
    PyList_Append(out, value.get());
  }
  return out;
}

// (dict, interned name): whether its shared keys have it; None where it shares none.
PyObject* shared(PyObject*, PyObject* both) {
  const void* keys = shared_keys(PyTuple_GET_ITEM(both, 0));
  if (keys == nullptr) Py_RETURN_NONE;
  return PyBool_FromLong(shared_keys_have(keys, PyTuple_GET_ITEM(both, 1)));
}

PyMethodDef methods[] = {
    {"knows", knows, METH_NOARGS, nullptr},
    {"str_keys", str_keys, METH_O, nullptr},
    {"entries", entries, METH_O, nullptr},
    {"strs", strs, METH_O, nullptr},
    {"find", find, METH_VARARGS, nullptr},
    {"hinted", hinted, METH_VARARGS, nullptr},
    {"shared", shared, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition{
    PyModuleDef_HEAD_INIT, "str_dict", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_str_dict() {
#ifdef LOOK_FIRST
  check_dict_layout();
#endif
  return PyModule_Create(&definition);
}
