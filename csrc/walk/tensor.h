// Which Python objects are tensors, and the tensor in one.
#pragma once

#include <torch/csrc/autograd/python_variable.h>

#include "walk/ref.h"

namespace pyparam::walk {

// By the object's real type. isinstance(), which torch's own conversions go by, also believes an
// object's
// `__class__`: Mock(spec=torch.Tensor) passes it, and its memory is no tensor's.
inline bool is_tensor(PyObject* object) {
  // Parameters without a search among their type's bases.
  return THPVariable_CheckExact(object) ||
         PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject*>(THPVariableClass));
}

}  // namespace pyparam::walk
