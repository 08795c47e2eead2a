// flatten on CUDA: one launch for all tensors of a device.
#include "kernels/flatten.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include "kernels/cpu/convert.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/transfer_call.h"
#include "kernels/memory_spans.h"

namespace pyparam::cuda {
namespace {

void require_convertible(at::TensorList tensors, at::ScalarType to) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::ScalarType from = tensors[i].scalar_type();
    TORCH_CHECK_TYPE(from == to || cpu::run_for(to, from) != nullptr, "flatten: tensors[", i,
                     "] is torch.", c10::getDtypeNames(from).first,
                     ", which does not convert to torch.", c10::getDtypeNames(to).first);
  }
}

void gather(const OnDevice& on, at::TensorList tensors, const at::Tensor& vector) {
  DeviceTable table("flatten", tensors, transfer_chunk(vector));
  const SentTable sent = send_table(on, table);
  launch<Flatten>(on, table.chunk_count(), transfer_arguments(sent.view, vector));
}

at::Tensor flatten_kernel(at::TensorList tensors, std::optional<at::ScalarType> dtype) {
  const Subject subject{tensors};
  require_alike("flatten", subject, dtype.has_value());
  const at::ScalarType to = flat_dtype(subject, dtype);
  if (!all_plain_memory(tensors)) return flatten_anywhere(tensors, dtype);
  require_convertible(tensors, to);
  const OnDevice on(tensors[0].device());
  at::Tensor vector =
      at::empty({total_elements(subject).expect_int()}, at::TensorOptions(to).device(on.device()));
  gather(on, tensors, vector);
  return vector;
}

void flatten_out_kernel(at::TensorList tensors, std::optional<at::ScalarType> dtype,
                        at::Tensor& out) {
  const Subject subject{tensors};
  require_alike("flatten", subject, dtype.has_value());
  const at::ScalarType to = flat_dtype(subject, dtype);
  if (tensors.empty() || !all_plain_memory(tensors) || !is_plain_memory(out))
    return flatten_out_anywhere(tensors, dtype, out);
  require_out(total_elements(subject), to, tensors[0].device(), out);
  require_convertible(tensors, to);
  require_apart(tensors, out);
  gather(OnDevice(out.device()), tensors, out);
}

}  // namespace
}  // namespace pyparam::cuda

TORCH_LIBRARY_IMPL(pyparam, CUDA, m) {
  m.impl("flatten", &pyparam::cuda::flatten_kernel);
  m.impl("flatten.out", &pyparam::cuda::flatten_out_kernel);
}
