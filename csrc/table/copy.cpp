#include "table/copy.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/pages.h"
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

void copy_one(const at::Tensor& target, const at::Tensor& source) {
  if (is_bytes(target, source)) {
    copy_bytes(target, source);
    target.unsafeGetTensorImpl()->bump_version();
  } else {
    target.copy_(source);
  }
}

// The pairs [begin, end).
void copy_range(const std::vector<at::Tensor>& targets, const std::vector<at::Tensor>& sources,
                size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i) {
    if (i + kAheadOfTensors < end) {
      prefetch(targets[i + kAheadOfTensors]);
      prefetch(sources[i + kAheadOfTensors]);
    }
    if (i + kAheadOfStorages < end) {
      for (const at::Tensor* tensor :
           {&targets[i + kAheadOfStorages], &sources[i + kAheadOfStorages]})
        prefetch_storage(*tensor);
    }
    copy_one(targets[i], sources[i]);
  }
}

// Gives back what was read of mappings.
class Behind {
 public:
  explicit Behind(const std::vector<Mapping>& mappings)
      : pages_(!mappings.empty()), mappings_(mappings), read_(mappings.size()) {}

  void note(const at::Tensor& source) {
    if (!source.is_cpu() || source.numel() == 0) return;
    const auto* first = static_cast<const char*>(source.const_data_ptr());
    int64_t span = 1;
    for (int64_t d = 0; d < source.dim(); ++d) span += (source.size(d) - 1) * source.stride(d);
    const char* last = first + span * static_cast<int64_t>(source.itemsize());
    for (size_t i = 0; i < mappings_.size(); ++i) {
      const Mapping& mapping = mappings_[i];
      if (first < mapping.begin || last > mapping.begin + mapping.bytes) continue;
      Read& read = read_[i];
      read.first = read.first == nullptr ? first : std::min(read.first, first);
      read.last = std::max(read.last, last);
    }
  }

  void give_back() {
    for (Read& read : read_) {
      if (read.first != nullptr) pages_.release(read.first, read.last - read.first);
      read = {};
    }
  }

 private:
  struct Read {
    const char* first = nullptr;
    const char* last = nullptr;
  };
  cpu::PageReleaser pages_;
  const std::vector<Mapping>& mappings_;
  std::vector<Read> read_;
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
  if (is_bytes(target, source)) return true;
  // What copy_ itself refuses or reads: left to it, and so are its words.
  return at::has_internal_overlap(target) == at::MemOverlap::No;
}

void copy_all(const std::vector<at::Tensor>& targets, const std::vector<at::Tensor>& sources) {
  const at::NoGradGuard no_grad;
  copy_range(targets, sources, 0, targets.size());
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

void copy_streamed(const std::vector<at::Tensor>& targets, const std::vector<at::Tensor>& sources,
                   const std::vector<Mapping>& mappings, int64_t batch_bytes) {
  const at::NoGradGuard no_grad;
  Behind behind(mappings);
  size_t first = 0;
  int64_t held = 0;
  for (size_t i = 0; i < targets.size(); ++i) {
    const at::Tensor &target = targets[i], &source = sources[i];
    const auto bytes = static_cast<int64_t>(source.nbytes());
    if (bytes > batch_bytes && target.is_contiguous() && source.is_contiguous()) {
      copy_range(targets, sources, first, i);
      first = i + 1;
      const at::Tensor to = target.detach().view({-1}), of = source.detach().view({-1});
      const int64_t step = std::max<int64_t>(batch_bytes / static_cast<int64_t>(of.itemsize()), 1);
      for (int64_t begin = 0; begin < of.numel(); begin += step) {
        const int64_t count = std::min(step, of.numel() - begin);
        const at::Tensor piece = of.narrow(0, begin, count);
        copy_one(to.narrow(0, begin, count), piece);
        behind.note(piece);
        behind.give_back();
      }
      held = 0;
      continue;
    }
    behind.note(source);
    held += bytes;
    if (held >= batch_bytes) {
      copy_range(targets, sources, first, i + 1);
      behind.give_back();
      first = i + 1;
      held = 0;
    }
  }
  copy_range(targets, sources, first, targets.size());
  behind.give_back();
}

}  // namespace pyparam
