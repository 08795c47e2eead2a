// scatter_ on the CPU: everything is checked, then the tensors are filled from the vector.
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include "kernels/cpu/transfer.h"
#include "kernels/extent.h"
#include "kernels/flatten.h"

namespace pyparam::cpu {
namespace {

void require_writable(const Subject& subject, const Pieces& pieces) {
  const bool inference = c10::InferenceMode::is_enabled();
  for (size_t i = 0; i < pieces.list.size(); ++i) {
    const at::Tensor& tensor = subject[i];
    TORCH_CHECK_VALUE(inference || !tensor.is_inference(), "scatter_: ", subject.spoken(i),
                      " is an inference tensor; outside inference mode it cannot be written");
    TORCH_CHECK_VALUE(
        pieces.list[i].data == nullptr || pieces.list[i].dense || distinct_elements(tensor),
        "scatter_: ", subject.spoken(i), " has elements that share memory (shape ", tensor.sizes(),
        ", stride ", tensor.strides(),
        "); expected one that can be written, which contiguous() gives");
  }
}

// Whether a write to some tensor would change elements of the vector that are still to be read.
bool reads_what_it_writes(const Subject& subject, const Pieces& pieces, const at::Tensor& vector) {
  const auto* begin = static_cast<const char*>(vector.const_data_ptr());
  const Span all{begin, begin + vector.nbytes()};
  for (size_t i = 0; i < pieces.list.size(); ++i) {
    const Piece& piece = pieces.list[i];
    const Span span = span_of(piece, subject[i]);
    const bool in_place =
        piece.dense && !piece.lazy &&
        span.begin == begin + piece.offset * static_cast<int64_t>(vector.itemsize());
    if (!in_place && !span.empty() && span.meets(all)) return true;
  }
  return false;
}

}  // namespace

bool scatter_(const Subject& subject, const at::Tensor& given, Inspect inspect) {
  if (!is_ordinary(given)) return false;
  const auto pieces = read_pieces("scatter_", subject, /*write=*/true);
  if (!pieces.has_value()) return false;
  if (inspect != nullptr && !pieces->empties.empty()) inspect("scatter_", subject, pieces->empties);
  const bool fits = given.dim() == 1 && given.size(0) == pieces->numel;
  const bool one_dtype = pieces->list.empty() ||
                         (pieces->same_dtype && pieces->list.front().dtype == given.scalar_type());
  if (!fits || !one_dtype) require_scatter(subject, given);
  require_extent(given, [] { return "scatter_: the vector"; });
  require_writable(subject, *pieces);
  at::Tensor vector = given;
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    if (!given.is_contiguous() || given.is_conj() || given.is_neg()) {
      vector = given.resolve_conj().resolve_neg().contiguous();
    } else if (reads_what_it_writes(subject, *pieces, given)) {
      vector = given.clone();
    }
  }
  scatter(subject, *pieces, vector);
  for (const at::Tensor& tensor : subject.tensors) tensor.unsafeGetTensorImpl()->bump_version();
  return true;
}

namespace {

void scatter_kernel(at::TensorList tensors, const at::Tensor& vector) {
  if (!scatter_(Subject{tensors}, vector, nullptr)) scatter_anywhere(tensors, vector);
}

}  // namespace
}  // namespace pyparam::cpu

TORCH_LIBRARY_IMPL(pyparam, CPU, m) { m.impl("scatter_", &pyparam::cpu::scatter_kernel); }
