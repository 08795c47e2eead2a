// The iterators that named_parameters, parameters, named_buffers, buffers, named_modules and
// modules return.
#pragma once

#include "walk/ref.h"

namespace pyparam::walk {

// Creates the iterator types; call once, from the module's initialisation.
void create_iterator_types(PyObject* extension);

// Iterators over (name, member) pairs, or over members alone. `members` is "_parameters" or
// "_buffers".
Ref member_iterator(PyObject* module, PyObject* members, PyObject* prefix, bool recurse,
                    bool remove_duplicate, bool named);

// An iterator over (name, module) pairs, or over modules alone.
Ref module_iterator(PyObject* module, PyObject* memo, PyObject* prefix, bool remove_duplicate,
                    bool named, bool ask_root);

}  // namespace pyparam::walk
