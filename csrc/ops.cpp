// The dispatcher schemas, one line an op. Kernels register themselves in kernels/<device>/<verb>.
#include <torch/library.h>

TORCH_LIBRARY(pyparam, m) {
  // Fallthrough keys and Meta kernels stand beside each op's CPU kernel.
  m.set_python_module("pyparam");
  m.def("flatten(Tensor[] tensors, ScalarType? dtype=None) -> Tensor");
  m.def("flatten.out(Tensor[] tensors, ScalarType? dtype=None, *, Tensor(a!) out) -> ()");
  m.def("unflatten(Tensor(a -> *) vector, Tensor[] like) -> Tensor(a)[]");
  m.def("scatter_(Tensor(a!)[] tensors, Tensor vector) -> ()");
}
