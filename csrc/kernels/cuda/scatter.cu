// scatter_ on CUDA: everything is checked, then one launch fills the tensors of a device.
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/transfer_call.h"
#include "kernels/extent.h"
#include "kernels/flatten.h"
#include "kernels/memory_spans.h"

namespace pyparam::cuda {
namespace {

void scatter_kernel(at::TensorList tensors, const at::Tensor& given) {
  const Subject subject{tensors};
  require_scatter(subject, given);
  require_extent(given, [] { return "scatter_: the vector"; });
  if (tensors.empty()) return;
  if (!all_plain_memory(tensors)) return scatter_anywhere(tensors, given);
  require_writable("scatter_", tensors);
  const OnDevice on(given.device());
  at::Tensor vector = given;
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    if (!given.is_contiguous() || given.is_conj() || given.is_neg()) {
      vector = given.resolve_conj().resolve_neg().contiguous();
    } else if (reads_what_it_writes(tensors, given)) {
      vector = given.clone();
    }
  }
  // Where two tensors share memory the last one wins, as on the CPU: they go one launch after the
  // other.
  int64_t first = 0;
  for (const at::TensorList piece : pieces_apart(tensors)) {
    DeviceTable table("scatter_", piece, transfer_chunk(vector));
    const SentTable sent = send_table(on, table);
    launch<Scatter>(on, table.chunk_count(),
                    transfer_arguments(sent.view, vector.narrow(0, first, table.numel())));
    first += table.numel();
  }
  for (const at::Tensor& tensor : tensors) tensor.unsafeGetTensorImpl()->bump_version();
}

}  // namespace
}  // namespace pyparam::cuda

TORCH_LIBRARY_IMPL(pyparam, CUDA, m) { m.impl("scatter_", &pyparam::cuda::scatter_kernel); }
