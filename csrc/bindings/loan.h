// Tensors of Python's objects, lent to native code for one call.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/utils/pybind.h>

#include <string>
#include <vector>

#include "article.h"
#include "walk/tensor.h"

namespace pyparam {

[[noreturn]] inline void no_tensor(pybind11::handle object, const std::string& what) {
  throw pybind11::type_error(what + " is no tensor but " +
                             with_article(Py_TYPE(object.ptr())->tp_name));
}

// Raises TypeError that calls an object by what `what()` gives, if it is no tensor.
template <typename What>
const at::Tensor& tensor_in(pybind11::handle object, const What& what) {
  if (!walk::is_tensor(object.ptr())) no_tensor(object, what());
  return THPVariable_Unpack(object.ptr());
}

// Fills a vector with the tensors of a list, for as long as it lives; the list must live longer.
//
// To count as a holder of each tensor costs more than many a verb does with it. Where no other code
// can run meanwhile the tensors are borrowed: their objects hold them. Where it can, it may swap
// what an object holds (torch.utils.swap_tensors), so then they are held, which PyTorch sees and
// refuses to swap: where Python has another thread, where a tensor's class or a mode has Python
// code of its own, and, through hold_all, once a signal's handler is to run.
class Loan {
 public:
  explicit Loan(std::vector<at::Tensor>& tensors) : tensors_(tensors) {}
  ~Loan();
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;

  // Raises TypeError for an element that is no tensor. To be called once. Runs no Python code.
  void take(PyObject* list);

  // Makes all loans of the process hold what they lent; to be called before native code that has
  // let go of the GIL runs Python code. The GIL is held.
  static void hold_all();

 private:
  void hold();
  void unlink();

  std::vector<at::Tensor>& tensors_;
  bool borrows_ = false;
  Loan *next_ = nullptr, *previous_ = nullptr;  // of those that borrow
};

}  // namespace pyparam
