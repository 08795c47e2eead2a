// nn.Module.state_dict, natively.
#pragma once

#include "walk/ref.h"

namespace pyparam::walk {

// Fills `destination` (or, where it is None, a new OrderedDict with `_metadata`) as
// nn.Module.state_dict does, with hooks, extra state and classes' own methods. Returns what the
// root's hooks made of it.
Ref state_dict(PyObject* module, PyObject* destination, PyObject* prefix, bool keep_vars);

// state_dict._metadata, null where it has none. An OrderedDict's attributes are looked up as any
// object's, which may run code.
Ref metadata_of(PyObject* state_dict);

}  // namespace pyparam::walk
