#include "walk/access.h"

#include <array>

#include "walk/items.h"
#include "walk/iterators.h"

namespace pyparam::walk {

namespace {

// What the six functions differ in.
enum class What { kParameters, kBuffers, kModules };

struct Arguments {
  PyObject* source = nullptr;
  PyObject* memo = Py_None;
  PyObject* prefix = nullptr;  // null: ""
  int recurse = 1;
  int remove_duplicate = 1;
};

// Most calls give the source alone and need no parsing.
template <What what, bool named>
Arguments parse(PyObject* const* args, Py_ssize_t count, PyObject* keyword_names) {
  Arguments parsed;
  if (count == 1 && keyword_names == nullptr) {
    parsed.source = args[0];
    return parsed;
  }
  const Ref positional = Ref::checked(PyTuple_New(count));
  for (Py_ssize_t i = 0; i < count; ++i) PyTuple_SET_ITEM(positional.get(), i, Py_NewRef(args[i]));
  const Ref keywords = Ref::checked(PyDict_New());
  for (Py_ssize_t i = 0; keyword_names != nullptr && i < PyTuple_GET_SIZE(keyword_names); ++i) {
    if (PyDict_SetItem(keywords.get(), PyTuple_GET_ITEM(keyword_names, i), args[count + i]) < 0)
      throw PythonError{};
  }
  int ok = 0;
  if constexpr (what == What::kModules && named) {
    static const char* names[] = {"source", "memo", "prefix", "remove_duplicate", nullptr};
    ok = PyArg_ParseTupleAndKeywords(positional.get(), keywords.get(), "O|OUp:named_modules",
                                     const_cast<char**>(names), &parsed.source, &parsed.memo,
                                     &parsed.prefix, &parsed.remove_duplicate);
  } else if constexpr (what == What::kModules) {
    static const char* names[] = {"source", "remove_duplicate", nullptr};
    ok = PyArg_ParseTupleAndKeywords(positional.get(), keywords.get(), "O|p:modules",
                                     const_cast<char**>(names), &parsed.source,
                                     &parsed.remove_duplicate);
  } else if constexpr (named) {
    static const char* names[] = {"source", "prefix", "recurse", "remove_duplicate", nullptr};
    ok = PyArg_ParseTupleAndKeywords(
        positional.get(), keywords.get(),
        what == What::kParameters ? "O|Upp:named_parameters" : "O|Upp:named_buffers",
        const_cast<char**>(names), &parsed.source, &parsed.prefix, &parsed.recurse,
        &parsed.remove_duplicate);
  } else {
    static const char* names[] = {"source", "recurse", nullptr};
    ok = PyArg_ParseTupleAndKeywords(positional.get(), keywords.get(),
                                     what == What::kParameters ? "O|p:parameters" : "O|p:buffers",
                                     const_cast<char**>(names), &parsed.source, &parsed.recurse);
  }
  // The arguments outlive the parsing: the caller holds them.
  if (ok == 0) throw PythonError{};
  return parsed;
}

PyObject* empty_string() {
  static PyObject* made = PyUnicode_InternFromString("");
  return made;
}

// With `own`, nn.Module's method of that name; without, whatever the source's own may be.
template <What what, bool named, bool own>
PyObject* access(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keyword_names) {
  return guarded([&]() -> PyObject* {
    const Arguments given = parse<what, named>(args, count, keyword_names);
    PyObject* prefix = given.prefix == nullptr ? empty_string() : given.prefix;
    const ModuleView view(given.source);
    constexpr unsigned method = what == What::kModules      ? kNamedModules
                                : what == What::kParameters ? kNamedParameters
                                                            : kNamedBuffers;
    // nn.Module.parameters asks self.named_parameters, and that self._named_members; modules asks
    // named_modules.
    constexpr unsigned asked = (own && named ? 0u : static_cast<unsigned>(method)) |
                               (what == What::kModules ? 0u : static_cast<unsigned>(kNamedMembers));
    if (view.type().is_module && view.overridden(asked) == 0) {
      if constexpr (what == What::kModules) {
        return module_iterator(given.source, given.memo, prefix, given.remove_duplicate != 0, named,
                               false)
            .release();
      } else {
        PyObject* members = what == What::kParameters ? names().parameters : names().buffers;
        return member_iterator(given.source, members, prefix, given.recurse != 0,
                               given.remove_duplicate != 0, named)
            .release();
      }
    }
    // Another source, or a class with a method of its own.
    const Ref python = Ref::checked(PyImport_ImportModule("pyparam._access.access"));
    const char* function = what == What::kModules ? "modules_of" : "members_of";
    return PyObject_CallMethod(python.get(), function, "OOOOOOOO", given.source,
                               what == What::kBuffers ? Py_True : Py_False, given.memo, prefix,
                               given.recurse != 0 ? Py_True : Py_False,
                               given.remove_duplicate != 0 ? Py_True : Py_False,
                               named ? Py_True : Py_False, own ? Py_True : Py_False);
  });
}

template <What what, bool named, bool own>
constexpr PyMethodDef define(const char* name, const char* doc) {
  return {name,
          reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(access<what, named, own>)),
          METH_FASTCALL | METH_KEYWORDS, doc};
}

}  // namespace

void add_access_functions(PyObject* extension) {
  static std::array<PyMethodDef, 13> functions{
      define<What::kParameters, true, false>(
          "named_parameters",
          "named_parameters(source, prefix='', recurse=True, remove_duplicate=True)\n--\n\n"
          "Iterates over (qualified name, parameter) pairs, as nn.Module.named_parameters does.\n\n"
          "Lazy: one step costs one step. A source's own method is asked where it has one.\n\n"
          "Args:\n    source: a module or any other source.\n    prefix: put before every name, "
          "with a dot.\n"
          "    recurse: False for the source's own alone.\n"
          "    remove_duplicate: whether one met again (the same object) is left out.\n\n"
          "Raises:\n    TypeError: for what is no source.\n"
          "    ValueError: with remove_duplicate=False, where a module contains itself."),
      define<What::kParameters, false, false>(
          "parameters",
          "parameters(source, recurse=True)\n--\n\n"
          "Iterates over parameters, as nn.Module.parameters does: each object once.\n\n"
          "Args:\n    source: a module or any other source.\n"
          "    recurse: False for the source's own alone.\n\n"
          "Raises:\n    TypeError: for what is no source."),
      define<What::kBuffers, true, false>(
          "named_buffers",
          "named_buffers(source, prefix='', recurse=True, remove_duplicate=True)\n--\n\n"
          "Iterates over (qualified name, buffer) pairs, as nn.Module.named_buffers does.\n\n"
          "A source that does not tell buffers from parameters has none.\n\n"
          "Args:\n    source: a module or any other source.\n    prefix: put before every name, "
          "with a dot.\n"
          "    recurse: False for the source's own alone.\n"
          "    remove_duplicate: whether one met again (the same object) is left out.\n\n"
          "Raises:\n    TypeError: for what is no source.\n"
          "    ValueError: with remove_duplicate=False, where a module contains itself."),
      define<What::kBuffers, false, false>(
          "buffers",
          "buffers(source, recurse=True)\n--\n\n"
          "Iterates over buffers, as nn.Module.buffers does: each object once.\n\n"
          "Args:\n    source: a module or any other source.\n"
          "    recurse: False for the source's own alone.\n\n"
          "Raises:\n    TypeError: for what is no source."),
      define<What::kModules, true, false>(
          "named_modules",
          "named_modules(source, memo=None, prefix='', remove_duplicate=True)\n--\n\n"
          "Iterates over (qualified name, module) pairs, as nn.Module.named_modules does.\n\n"
          "Args:\n    source: a module, or an Inspector of one.\n"
          "    memo: a set of modules to leave out, which those that come are added to.\n"
          "    prefix: the name of the source itself, before every other with a dot.\n"
          "    remove_duplicate: whether a module met again is left out.\n\n"
          "Raises:\n    ValueError: with remove_duplicate=False, where a module contains itself.\n"
          "    TypeError: for a source without modules (a state dict, a checkpoint)."),
      define<What::kModules, false, false>(
          "modules",
          "modules(source, remove_duplicate=True)\n--\n\n"
          "Iterates over modules, as nn.Module.modules does, the source itself first.\n\n"
          "Args:\n    source: a module, or an Inspector of one.\n"
          "    remove_duplicate: whether a module met again is left out.\n\n"
          "Raises:\n    ValueError: with remove_duplicate=False, where a module contains itself.\n"
          "    TypeError: for a source without modules (a state dict, a checkpoint)."),
      define<What::kParameters, true, true>("own_named_parameters", nullptr),
      define<What::kParameters, false, true>("own_parameters", nullptr),
      define<What::kBuffers, true, true>("own_named_buffers", nullptr),
      define<What::kBuffers, false, true>("own_buffers", nullptr),
      define<What::kModules, true, true>("own_named_modules", nullptr),
      define<What::kModules, false, true>("own_modules", nullptr),
      PyMethodDef{nullptr, nullptr, 0, nullptr},
  };
  if (PyModule_AddFunctions(extension, functions.data()) < 0) throw PythonError{};
}

}  // namespace pyparam::walk
