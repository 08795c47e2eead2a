// nn.Module.load_state_dict, natively, where it comes to looking names up and copying values.
#pragma once

#include "walk/ref.h"

namespace pyparam::walk {

// Loads `state` into a plain model of ordinary tensors, as nn.Module.load_state_dict does without
// `assign`, and gives (missing keys, unexpected keys). None, with nothing written, where anything
// needs Python code, or where PyTorch would report an error or warn: its own method then does it
// all, in its order and its words.
Ref load_state_dict(PyObject* module, PyObject* state, bool strict);

}  // namespace pyparam::walk
