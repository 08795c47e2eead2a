// The gradients of a table's tensors.
#pragma once

#include <ATen/Parallel.h>

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "table/param_table.h"
#include "table/prefetch.h"

namespace pyparam {

// The gradient, undefined where there is none. Asks leaves only: others keep none that is theirs.
inline const at::Tensor& gradient_of(const at::Tensor& tensor) {
  static const at::Tensor none;
  if (!tensor.defined()) return none;
  if (tensor.requires_grad() && !tensor.is_leaf() && !tensor.retains_grad()) return none;
  return tensor.grad();
}

// Those that are there, in table order, and the places in the table of those that are not.
struct Gradients {
  std::vector<at::Tensor> present;
  std::vector<int64_t> missing;

  Gradients() = default;
  Gradients(Gradients&&) = default;
  Gradients& operator=(Gradients&&) = default;
  // Letting go of a tensor waits for its memory too.
  ~Gradients() {
    at::parallel_for(0, static_cast<int64_t>(present.size()), kTensorsAtOnce,
                     [&](int64_t begin, int64_t end) {
                       for (int64_t i = begin; i < end; ++i) present[i].reset();
                     });
  }

  static constexpr int64_t kTensorsAtOnce = 4096;
};

inline Gradients gradients(const ParamTable& table) {
  Gradients out;
  const auto count = static_cast<int64_t>(table.size());
  out.present.resize(table.size());
  std::atomic<bool> all{true};
  at::parallel_for(0, count, Gradients::kTensorsAtOnce, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto ahead = static_cast<size_t>(i) + kAheadOfTensors;
      const auto nearer = static_cast<size_t>(i) + kAheadOfStorages;
      if (ahead < table.size()) prefetch(table.tensors[ahead]);
      if (nearer < table.size() && table.tensors[nearer].defined()) {
        prefetch_bytes(table.tensors[nearer].unsafeGetTensorImpl()->autograd_meta(), 2);
      }
      out.present[i] = gradient_of(table.tensors[i]);
      if (!out.present[i].defined()) all = false;
    }
  });
  if (all) return out;
  size_t kept = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (!out.present[i].defined()) {
      out.missing.push_back(i);
    } else if (kept++ != static_cast<size_t>(i)) {
      out.present[kept - 1] = std::move(out.present[i]);
    }
  }
  out.present.resize(kept);
  return out;
}

}  // namespace pyparam
