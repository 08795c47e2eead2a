// Tensor.detach() for what stands in a state dict.
#pragma once

#include "walk/ref.h"

namespace pyparam::walk {

// Detaches tensors as `tensor.detach()` does. Where nobody could tell the difference (an ordinary
// tensor, no mode active, no transform), the result is made without the dispatcher.
class Detacher {
 public:
  Detacher();

  // A new reference, or null where Python's own `detach` has to be called (a subclass, a mode, a
  // transform).
  PyObject* detach(PyObject* tensor) const;

  // The same, made without the dispatcher, so that no code but this runs; null also where it would
  // be needed.
  PyObject* detach_plain(PyObject* tensor) const;

  // Whether no mode, transform or the like changes what an op on ordinary tensors does.
  bool ordinary() const { return ordinary_; }

 private:
  bool native_;    // no torch function or dispatch mode wants to see a detach
  bool ordinary_;  // no inference mode, transform or other key that changes what detach does
};

}  // namespace pyparam::walk
