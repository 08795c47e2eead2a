// The dispatcher schemas, one line an op. Kernels register themselves in kernels/<device>/<verb>.
#include <torch/library.h>

TORCH_LIBRARY(pyparam, m) {
  // Fallthrough keys and Meta kernels stand beside each op's CPU kernel.
  m.set_python_module("pyparam");
  m.def("fingerprint(Tensor[] tensors) -> Tensor");
  m.def("compare(Tensor[] a, Tensor[] b) -> (Tensor values, Tensor counts)");
  m.def("measure(Tensor[] tensors) -> (Tensor values, Tensor counts)");
  m.set_python_module("pyparam._measure");  // where its shapes, which depend on data, are told
  m.def(
      "measure_histogram(Tensor[] tensors) -> (Tensor values, Tensor counts, Tensor below, Tensor offsets, "
      "Tensor bins, Tensor bin_counts)");
  m.set_python_module("pyparam");
  m.def("total_norm(Tensor[] tensors, float p=2.0) -> Tensor");
  m.def("clip_grad_norm_(Tensor(a!)[] grads, float max_norm, float norm_type=2.0, bool error_if_nonfinite=False) -> Tensor");
}
