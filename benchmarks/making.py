"""Loops in C that make the objects of a listing and do nothing else: what CPython and torch charge for that.

They walk nothing: they are given names in two pieces (a module's and its member's, to be joined), and the
objects.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import sysconfig
from collections.abc import Callable, Iterable
from typing import Any

from compiled import compiled
from torch import Tensor

SOURCE = """
#include <Python.h>

static PyObject* joined(PyObject* names, Py_ssize_t i) {
  PyObject* pieces = PyList_GET_ITEM(names, i);
  return PyUnicode_Concat(PyTuple_GET_ITEM(pieces, 0), PyTuple_GET_ITEM(pieces, 1));
}

// A list of the pairs of names and values.
extern "C" PyObject* make_pairs(PyObject* names, PyObject* values) {
  const Py_ssize_t count = PyList_GET_SIZE(names);
  PyObject* made = PyList_New(count);
  for (Py_ssize_t i = 0; made != nullptr && i < count; ++i) {
    PyObject* pair = PyTuple_New(2);
    PyTuple_SET_ITEM(pair, 0, joined(names, i));
    PyTuple_SET_ITEM(pair, 1, Py_NewRef(PyList_GET_ITEM(values, i)));
    PyList_SET_ITEM(made, i, pair);
  }
  return made;
}

// An OrderedDict of detached tensors, and in it, as _metadata, one of copies of dicts.
extern "C" PyObject* make_state(PyObject* names, PyObject* tensors, PyObject* detach, PyObject* owners,
                                PyObject* locals) {
  PyObject* made = PyODict_New();
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(names); ++i) {
    PyObject* name = joined(names, i);
    PyObject* tensor = PyObject_CallOneArg(detach, PyList_GET_ITEM(tensors, i));
    PyODict_SetItem(made, name, tensor);
    Py_DECREF(name);
    Py_DECREF(tensor);
  }
  PyObject* metadata = PyODict_New();
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(owners); ++i) {
    PyObject* name = joined(owners, i);
    PyObject* copy = PyDict_Copy(PyList_GET_ITEM(locals, i));
    PyODict_SetItem(metadata, name, copy);
    Py_DECREF(name);
    Py_DECREF(copy);
  }
  PyObject_SetAttrString(made, "_metadata", metadata);
  Py_DECREF(metadata);
  return made;
}
"""


@functools.cache
def _compiled() -> ctypes.PyDLL:
    loaded = compiled(SOURCE, [f"-I{sysconfig.get_path('include')}"], ctypes.PyDLL)
    for function, arguments in ((loaded.make_pairs, 2), (loaded.make_state, 5)):
        function.restype = ctypes.py_object
        function.argtypes = [ctypes.py_object] * arguments
    return loaded


def split(names: Iterable[str]) -> list[tuple[str, str]]:
    """Each name as its owner's, with the dot, and what follows."""
    return [(name[: name.rfind(".") + 1], name[name.rfind(".") + 1 :]) for name in names]


def without_collector(job: Callable[[], Any]) -> Callable[[], Any]:
    """The job while the collector pauses, as the bulk walk has it."""

    def run() -> Any:
        gc.disable()
        try:
            return job()
        finally:
            gc.enable()

    return run


def pairs_maker(pairs: list[tuple[str, Any]]) -> Callable[[], Any]:
    """Makes a list as ``list(model.named_parameters())`` gives it."""
    names, values = split(name for name, _ in pairs), [value for _, value in pairs]
    make = _compiled().make_pairs
    return without_collector(lambda: make(names, values))


def state_maker(state: Any) -> Callable[[], Any]:
    """Makes a state dict; ``state`` is one with ``keep_vars=True``."""
    names, tensors = split(state), list(state.values())
    owners, locals_ = split(state._metadata), list(state._metadata.values())
    make, detach = _compiled().make_state, Tensor.detach
    return without_collector(lambda: make(names, tensors, detach, owners, locals_))
