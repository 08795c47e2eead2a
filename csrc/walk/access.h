// The access functions as Python callables: named_parameters, parameters, named_buffers, buffers,
// named_modules, modules.
#pragma once

#include "walk/ref.h"

namespace pyparam::walk {

// Adds two callables a function to the extension: `named_parameters(source, ...)`, for any source,
// which asks a class's own method where it has one, and `own_named_parameters(module, ...)`, which
// is nn.Module's method itself.
void add_access_functions(PyObject* extension);

}  // namespace pyparam::walk
