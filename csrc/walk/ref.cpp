#include "walk/ref.h"

#include <exception>
#include <new>

namespace pyparam::walk {

PyObject* translate_exception() {
  try {
    throw;
  } catch (const PythonError&) {
    if (PyErr_Occurred() == nullptr) {
      PyErr_SetString(PyExc_SystemError,
                      "pyparam internal error, please report: an error without a message");
    }
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_Format(PyExc_SystemError, "pyparam internal error, please report: %s", error.what());
  } catch (...) {
    PyErr_SetString(PyExc_SystemError,
                    "pyparam internal error, please report: an unknown exception");
  }
  return nullptr;
}

}  // namespace pyparam::walk
