#include "bindings/loan.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

#include "table/prefetch.h"

namespace pyparam {
namespace {

// Objects and tensors lie anywhere, so they are asked for before they are read.
constexpr size_t kAhead = 16;

Loan* borrowing = nullptr;  // the last of those that borrow; under the GIL

// Whether this thread is the only one that has ever run Python code, of those that live.
bool is_alone() {
  PyThreadState* own = PyThreadState_Get();
  return PyInterpreterState_ThreadHead(PyThreadState_GetInterpreter(own)) == own &&
         PyThreadState_Next(own) == nullptr;
}

bool has_modes() {
  return at::impl::torch_function_mode_enabled() ||
         c10::impl::TorchDispatchModeTLS::any_modes_set();
}

}  // namespace

void Loan::take(PyObject* list) {
  PyObject* const* const items = PySequence_Fast_ITEMS(list);
  const auto size = static_cast<size_t>(PyList_GET_SIZE(list));
  tensors_.reserve(size);
  borrows_ = true;
  next_ = borrowing;
  if (next_ != nullptr) next_->previous_ = this;
  borrowing = this;
  bool ordinary = true;
  for (size_t i = 0; i < size; ++i) {
    if (i + kAhead < size) prefetch_bytes(items[i + kAhead], 1);
    ordinary &= THPVariable_CheckExact(items[i]);
    tensors_.push_back(c10::MaybeOwnedTraits<at::Tensor>::createBorrow(
        tensor_in(items[i], [&] { return "tensors[" + std::to_string(i) + "]"; })));
  }
  if (!ordinary || !is_alone() || has_modes()) hold();
}

Loan::~Loan() {
  if (!borrows_) return;
  unlink();
  for (at::Tensor& tensor : tensors_) tensor.unsafeReleaseTensorImpl();
}

// Counts alone change: other threads may be reading the tensors.
void Loan::hold() {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (i + kAhead < tensors_.size()) prefetch_bytes(tensors_[i + kAhead].unsafeGetTensorImpl(), 1);
    at::Tensor(tensors_[i]).unsafeReleaseTensorImpl();
  }
  borrows_ = false;
  unlink();
}

void Loan::hold_all() {
  while (borrowing != nullptr) borrowing->hold();
}

void Loan::unlink() {
  (previous_ != nullptr ? previous_->next_ : borrowing) = next_;
  if (next_ != nullptr) next_->previous_ = previous_;
}

}  // namespace pyparam
