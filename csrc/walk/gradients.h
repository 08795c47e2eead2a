// nn.Module.zero_grad, natively.
#pragma once

#include "walk/ref.h"

namespace pyparam::walk {

// Drops the gradients of a plain model's parameters, or fills them with zeros. False, with nothing
// changed, where Python code has to do it.
bool zero_gradients(PyObject* module, bool set_to_none);

}  // namespace pyparam::walk
