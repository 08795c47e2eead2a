// The dispatcher schemas, one line an op. Kernels register themselves in kernels/<device>/<verb>.
#include <torch/library.h>

TORCH_LIBRARY(pyparam, m) {
  // Fallthrough keys and Meta kernels stand beside each op's CPU kernel.
  m.set_python_module("pyparam");
  m.def("fingerprint(Tensor[] tensors) -> Tensor");
  m.def("compare(Tensor[] a, Tensor[] b) -> (Tensor values, Tensor counts)");
  m.def("measure(Tensor[] tensors) -> (Tensor values, Tensor counts)");
  m.set_python_module(
      "pyparam._measure.measure");  // where its shapes, which depend on data, are told
  m.def(
      "measure_histogram(Tensor[] tensors) -> (Tensor values, Tensor counts, Tensor below, Tensor "
      "offsets, "
      "Tensor bins, Tensor bin_counts)");
  m.set_python_module("pyparam");
  m.def("total_norm(Tensor[] tensors, float p=2.0) -> Tensor");
  m.def(
      "clip_grad_norm_(Tensor(a!)[] grads, float max_norm, float norm_type=2.0, bool "
      "error_if_nonfinite=False) -> Tensor");
  m.def("flatten(Tensor[] tensors, ScalarType? dtype=None) -> Tensor");
  m.def("flatten.out(Tensor[] tensors, ScalarType? dtype=None, *, Tensor(a!) out) -> ()");
  m.def("unflatten(Tensor(a -> *) vector, Tensor[] like) -> Tensor(a)[]");
  m.def("scatter_(Tensor(a!)[] tensors, Tensor vector) -> ()");
  m.def(
      "fill_(Tensor(a!)[] tensors, int[] kinds, float[] parameters, int seed, int[] streams, int[] "
      "offsets, "
      "int[] strides, bool moments=False) -> Tensor");
  // TorchScript removes an op that writes to a list where nothing reads its result; to a tensor it
  // may write.
  m.def(
      "fill_.one(Tensor(a!) tensor, int kind, float[] parameters, int seed, int stream, int "
      "offset=0, "
      "int[] strides=[]) -> Tensor(a!)");
}
