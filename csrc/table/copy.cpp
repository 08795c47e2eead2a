#include "table/copy.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_lerp.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <optional>

#include "kernels/cpu/copies.h"
#include "kernels/cpu/pages.h"
#include "kernels/extent.h"
#include "kernels/spans.h"
#include "table/ordinary.h"
#include "table/prefetch.h"

namespace pyparam {

namespace {

bool moves(at::ScalarType dtype) { return c10::isFloatingType(dtype) || c10::isComplexType(dtype); }

bool has_forward_gradient(const c10::TensorImpl& impl) {
  const auto* meta = static_cast<const torch::autograd::AutogradMeta*>(impl.autograd_meta());
  return meta != nullptr && meta->fw_grad_ != nullptr;
}

// From this size on the pages of a source are given back by whoever copied it; below, those of many
// are together.
constexpr int64_t kLargeBytes = int64_t{1} << 18;

// Gives back what was read of mappings.
class Behind {
 public:
  explicit Behind(const std::vector<Mapping>& mappings)
      : pages_(!mappings.empty()), mappings_(mappings), read_(mappings.size()) {}

  bool enabled() const { return pages_.enabled(); }

  // At once. Any thread may call it.
  void give_back(const Span& read) const {
    if (mapping_of(read) < mappings_.size()) pages_.release(read.begin, read.end - read.begin);
  }

  // With the next that are given back together.
  void note(const Span& read) {
    const size_t i = mapping_of(read);
    if (i == mappings_.size()) return;
    Span& all = read_[i];
    all.begin = all.empty() ? read.begin : std::min(all.begin, read.begin);
    all.end = std::max(all.end, read.end);
  }
  void give_back_noted() {
    for (Span& read : read_) {
      if (!read.empty()) pages_.release(read.begin, read.end - read.begin);
      read = {};
    }
  }

 private:
  size_t mapping_of(const Span& read) const {
    size_t i = 0;
    while (i < mappings_.size() && (read.begin < mappings_[i].begin ||
                                    read.end > mappings_[i].begin + mappings_[i].bytes)) {
      ++i;
    }
    return i;
  }

  cpu::PageReleaser pages_;
  const std::vector<Mapping>& mappings_;
  std::vector<Span> read_;
};

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
  if (!has_extent(target) || !has_extent(source)) return false;  // copy_ itself does not ask
  if (target.is_cpu() && source.is_cpu() && target.scalar_type() == source.scalar_type() &&
      target.is_contiguous() && source.is_contiguous()) {
    return true;
  }
  // What copy_ itself refuses or reads: left to it, and so are its words.
  return at::has_internal_overlap(target) == at::MemOverlap::No;
}

void check_copies(const std::vector<at::Tensor>& targets, const std::vector<at::Tensor>& sources) {
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
}

std::vector<int64_t> odd_copies(const std::vector<at::Tensor>& targets,
                                const std::vector<at::Tensor>& sources) {
  TORCH_CHECK_VALUE(targets.size() == sources.size(), "copy: ", targets.size(), " targets and ",
                    sources.size(), " sources");
  std::vector<int64_t> odd;
  for (size_t i = 0; i < targets.size(); ++i) {
    if (!copies_plainly(targets[i], sources[i])) odd.push_back(static_cast<int64_t>(i));
  }
  return odd;
}

void copy_all(const std::vector<at::Tensor>& targets, const std::vector<at::Tensor>& sources,
              const std::vector<Mapping>& mappings, int64_t batch_bytes) {
  const at::NoGradGuard no_grad;
  Behind behind(mappings);
  std::vector<cpu::Copy> batch;
  int64_t held = 0;  // bytes of small sources, whose pages stay until the batch is copied
  cpu::Done done;
  if (behind.enabled()) {
    done = [&](const cpu::Copy& whole, const cpu::Copy& part) {
      if (whole.bytes_read() >= kLargeBytes) behind.give_back(part.read());
    };
  }
  const auto finish = [&] {
    cpu::copy_all(batch, /*weight=*/1, done);
    behind.give_back_noted();
    batch.clear();
    held = 0;
  };
  for (size_t i = 0; i < targets.size(); ++i) {
    prefetch_ahead(targets, i);
    prefetch_ahead(sources, i);
    const at::Tensor &target = targets[i], &source = sources[i];
    const std::optional<cpu::Copy> copy = cpu::copy_between(target, source);
    if (!copy.has_value()) {
      finish();
      target.copy_(source);
      if (source.is_cpu()) behind.give_back(span_of(source));
      continue;
    }
    target.unsafeGetTensorImpl()->bump_version();
    if (copy->to == copy->from) continue;
    batch.push_back(*copy);
    if (!behind.enabled() || copy->numel == 0 || copy->bytes_read() >= kLargeBytes) continue;
    behind.note(copy->read());
    held += copy->bytes_read();
    if (held >= batch_bytes) finish();
  }
  finish();
}

void lerp_all(const std::vector<at::Tensor>& targets, const std::vector<at::Tensor>& sources,
              double weight) {
  for (size_t i = 0; i < targets.size(); ++i) {
    prefetch_ahead(targets, i);
    prefetch_ahead(sources, i);
    const at::Tensor &target = targets[i], &source = sources[i];
    if (!moves(target.scalar_type())) continue;
    TORCH_CHECK_TYPE(!target.is_cpu() || cpu::lerp_for(target.scalar_type()) != nullptr,
                     "lerp: tensors[", i, "] is torch.",
                     c10::getDtypeNames(target.scalar_type()).first,
                     ", in which PyTorch does not interpolate");
    TORCH_CHECK_VALUE(
        target.scalar_type() == source.scalar_type() && target.device() == source.device(),
        "lerp: tensors[", i, "] is torch.", c10::getDtypeNames(target.scalar_type()).first, " on ",
        target.device().str(), ", and its source torch.",
        c10::getDtypeNames(source.scalar_type()).first, " on ", source.device().str());
  }
  const at::NoGradGuard no_grad;
  std::vector<cpu::Copy> runs;
  runs.reserve(targets.size());
  std::vector<at::Tensor> other_targets, other_sources;  // on devices, or not in order
  for (size_t i = 0; i < targets.size(); ++i) {
    prefetch_ahead(targets, i);
    prefetch_ahead(sources, i);
    const at::Tensor &target = targets[i], &source = sources[i];
    std::optional<cpu::Copy> run = cpu::copy_between(target, source);
    const bool lerps = moves(target.scalar_type());
    if (run.has_value() && lerps) {
      run->lerp = cpu::lerp_for(target.scalar_type());
      if (run->lerp == nullptr || run->written().meets(run->read())) run.reset();
    }
    if (run.has_value()) {
      target.unsafeGetTensorImpl()->bump_version();
      if (run->to != run->from) runs.push_back(*run);
    } else if (lerps) {
      other_targets.push_back(target);
      other_sources.push_back(source.detach());
    } else {
      target.copy_(source);
    }
  }
  cpu::copy_all(runs, weight);
  if (!other_targets.empty()) at::_foreach_lerp_(other_targets, other_sources, weight);
}

}  // namespace pyparam
