// From an nn.Module to an Outline, in one pass.
#pragma once

#include "table/outline.h"
#include "walk/ref.h"

namespace pyparam::walk {

// `type_label(cls)` gives what a person calls a class, or None where each of its modules has a name
// of its own, which `module_label(module)` then gives. Both give a str. A module met a second time
// is a node that repeats the first.
Outline outline_of_module(PyObject* module, PyObject* type_label, PyObject* module_label);

}  // namespace pyparam::walk
