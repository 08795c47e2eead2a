// The dispatcher schemas, one line an op. Kernels register themselves in kernels/<device>/<verb>.
#include <torch/library.h>

TORCH_LIBRARY(pyparam, m) {
  // Fallthrough keys and Meta kernels stand beside each op's CPU kernel.
  m.set_python_module("pyparam");
  m.def(
      "fill_(Tensor(a!)[] tensors, int[] kinds, float[] parameters, int seed, int[] streams, int[] offsets, "
      "int[] strides, bool moments=False) -> Tensor");
  // TorchScript removes an op that writes to a list where nothing reads its result; to a tensor it may write.
  m.def(
      "fill_.one(Tensor(a!) tensor, int kind, float[] parameters, int seed, int stream, int offset=0, "
      "int[] strides=[]) -> Tensor(a!)");
}
