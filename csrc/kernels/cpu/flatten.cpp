// flatten on the CPU: one pass reads what the tensors are, one fills the vector.
#include "kernels/flatten.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include "kernels/cpu/memory.h"
#include "kernels/cpu/transfer.h"
#include "kernels/extent.h"

namespace pyparam::cpu {
namespace {

// The pieces of a subject that flattens to one dtype; nullopt where some tensor is not an ordinary
// CPU tensor.
std::optional<Pieces> pieces_of(const Subject& subject, std::optional<at::ScalarType> dtype,
                                Inspect inspect) {
  auto pieces = read_pieces("flatten", subject, /*write=*/false);
  if (!pieces.has_value()) return std::nullopt;
  if (inspect != nullptr && !pieces->empties.empty()) inspect("flatten", subject, pieces->empties);
  if (!pieces->same_dtype) require_alike("flatten", subject, dtype.has_value());
  require_convertible("flatten", subject, *pieces, flat_dtype(subject, dtype));
  return pieces;
}

// A source may lie in out only where it already is what out will hold.
void require_apart(const Subject& subject, const Pieces& pieces, const at::Tensor& out) {
  const auto* begin = static_cast<const char*>(out.const_data_ptr());
  const Span all{begin, begin + out.nbytes()};
  for (size_t i = 0; i < pieces.list.size(); ++i) {
    const Piece& piece = pieces.list[i];
    if (piece.data == nullptr) continue;
    const Span span = span_of(piece, subject[i]);
    if (!span.meets(all)) continue;
    const bool in_place = piece.dense && !piece.lazy && piece.dtype == out.scalar_type() &&
                          span.begin == begin + piece.offset * static_cast<int64_t>(out.itemsize());
    TORCH_CHECK_VALUE(in_place, "flatten: out overlaps ", subject.spoken(i),
                      " in memory; expected memory apart");
  }
}

}  // namespace

std::optional<at::Tensor> flatten(const Subject& subject, std::optional<at::ScalarType> dtype,
                                  Inspect inspect) {
  const auto pieces = pieces_of(subject, dtype, inspect);
  if (!pieces.has_value()) return std::nullopt;
  at::Tensor vector = fresh_vector(pieces->numel, flat_dtype(subject, dtype));
  gather(subject, *pieces, vector);
  return vector;
}

bool flatten_out(const Subject& subject, std::optional<at::ScalarType> dtype, at::Tensor& out,
                 Inspect inspect) {
  if (!is_ordinary(out)) return false;
  const auto pieces = pieces_of(subject, dtype, inspect);
  if (!pieces.has_value()) return false;
  require_out(pieces->numel, flat_dtype(subject, dtype), at::Device(at::kCPU), out);
  require_extent(out, [] { return "flatten: out"; });
  TORCH_CHECK_VALUE(
      !out.is_inference() || c10::InferenceMode::is_enabled(),
      "flatten: out is an inference tensor; outside inference mode it cannot be written");
  require_apart(subject, *pieces, out);
  gather(subject, *pieces, out);
  out.unsafeGetTensorImpl()->bump_version();
  return true;
}

namespace {

at::Tensor flatten_kernel(at::TensorList tensors, std::optional<at::ScalarType> dtype) {
  auto vector = flatten(Subject{tensors}, dtype, nullptr);
  if (vector.has_value()) return *std::move(vector);
  return flatten_anywhere(tensors, dtype);
}

void flatten_out_kernel(at::TensorList tensors, std::optional<at::ScalarType> dtype,
                        at::Tensor& out) {
  if (!flatten_out(Subject{tensors}, dtype, out, nullptr))
    flatten_out_anywhere(tensors, dtype, out);
}

}  // namespace
}  // namespace pyparam::cpu

TORCH_LIBRARY_IMPL(pyparam, CPU, m) {
  m.impl("flatten", &pyparam::cpu::flatten_kernel);
  m.impl("flatten.out", &pyparam::cpu::flatten_out_kernel);
}
