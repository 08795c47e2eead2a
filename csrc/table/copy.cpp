#include "table/copy.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <cstring>

#include "kernels/extent.h"
#include "table/ordinary.h"
#include "table/prefetch.h"

namespace pyparam {

namespace {

constexpr int64_t kPieceBytes = int64_t{1} << 20;

bool has_forward_gradient(const c10::TensorImpl& impl) {
  const auto* meta = static_cast<const torch::autograd::AutogradMeta*>(impl.autograd_meta());
  return meta != nullptr && meta->fw_grad_ != nullptr;
}

bool is_bytes(const at::Tensor& target, const at::Tensor& source) {
  return target.scalar_type() == source.scalar_type() && target.is_cpu() && source.is_cpu() &&
         target.is_contiguous() && source.is_contiguous();
}

void copy_bytes(const at::Tensor& target, const at::Tensor& source) {
  auto* to = static_cast<char*>(target.mutable_data_ptr());
  const auto* from = static_cast<const char*>(source.const_data_ptr());
  const auto size = static_cast<int64_t>(target.nbytes());
  if (size == 0 || to == from) return;
  if (size <= kPieceBytes) {
    std::memmove(to, from, static_cast<size_t>(size));
  } else if (to + size <= from || from + size <= to) {
    at::parallel_for(0, size, kPieceBytes, [&](int64_t begin, int64_t end) {
      std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
    });
  } else {
    std::memmove(to, from, static_cast<size_t>(size));
  }
}

}  // namespace

bool copies_plainly(const at::Tensor& target, const at::Tensor& source) {
  if (!target.defined() || !source.defined()) return false;
  const c10::TensorImpl& to = *target.unsafeGetTensorImpl();
  const c10::TensorImpl& from = *source.unsafeGetTensorImpl();
  if (!is_ordinary(to) || !is_ordinary(from) || target.is_inference() || to.is_meta() ||
      from.is_meta() || !to.has_storage() || !from.has_storage()) {
    return false;
  }
  if (to.has_symbolic_sizes_strides() || from.has_symbolic_sizes_strides() ||
      to.sizes() != from.sizes() || has_forward_gradient(to) || has_forward_gradient(from)) {
    return false;
  }
  if (target.is_complex() != source.is_complex() && source.is_complex()) return false;
  if (is_bytes(target, source)) return has_extent(target) && has_extent(source);
  // What copy_ itself refuses or reads: left to it, and so are its words.
  return at::has_internal_overlap(target) == at::MemOverlap::No;
}

void copy_all(const std::vector<at::Tensor>& targets, const std::vector<at::Tensor>& sources) {
  const at::NoGradGuard no_grad;
  const size_t count = targets.size();
  for (size_t i = 0; i < count; ++i) {
    if (i + kAheadOfTensors < count) {
      prefetch(targets[i + kAheadOfTensors]);
      prefetch(sources[i + kAheadOfTensors]);
    }
    if (i + kAheadOfStorages < count) {
      for (const at::Tensor* tensor :
           {&targets[i + kAheadOfStorages], &sources[i + kAheadOfStorages]})
        prefetch_storage(*tensor);
    }
    if (is_bytes(targets[i], sources[i])) {
      copy_bytes(targets[i], sources[i]);
      targets[i].unsafeGetTensorImpl()->bump_version();
    } else {
      targets[i].copy_(sources[i]);
    }
  }
}

void copy_checked(const std::vector<at::Tensor>& targets, const std::vector<at::Tensor>& sources) {
  TORCH_CHECK_VALUE(targets.size() == sources.size(), "copy: ", targets.size(), " targets and ",
                    sources.size(), " sources");
  for (size_t i = 0; i < targets.size(); ++i) {
    TORCH_CHECK_VALUE(targets[i].sizes() == sources[i].sizes(), "copy: tensors[", i, "] has shape ",
                      targets[i].sizes(), ", and its source ", sources[i].sizes());
    TORCH_CHECK_TYPE(
        copies_plainly(targets[i], sources[i]), "copy: tensors[", i,
        "] or its source is no ordinary tensor whose memory is all there (meta, sparse, "
        "quantized, freed, expanded, an inference tensor), or takes complex values as real");
  }
  copy_all(targets, sources);
}

}  // namespace pyparam
