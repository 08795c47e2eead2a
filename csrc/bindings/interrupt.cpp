// What a long pass asks between two pieces of work: whether a signal has come (Ctrl-C).
#include "bindings/interrupt.h"

#include <torch/csrc/utils/pybind.h>

#include "bindings/loan.h"
#include "kernels/interrupt.h"

namespace py = pybind11;

namespace pyparam {
namespace {

// Runs the handlers of signals that have come, and throws what they raise. Python does so on its
// main thread alone; on others this does nothing.
void ask_python() {
  if (Py_IsInitialized() == 0) return;
  const py::gil_scoped_acquire gil;
  Loan::hold_all();
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

}  // namespace

void answer_signals() { set_ask_caller(&ask_python); }

}  // namespace pyparam
