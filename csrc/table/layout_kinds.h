// Which tensors of a list are laid out alike: shape, dtype and device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace pyparam {

struct LayoutKinds {
  std::vector<int64_t> kind_of;  // of each tensor, counted from 0 as they are first met
  std::vector<int64_t> first;    // of each kind: the first tensor of it
  // Tensors that may have no values to read, or no sizes: everything but plain strided ones with
  // their memory. Those whose sizes only Python can tell are a kind each.
  std::vector<int64_t> odd;
};

// Numbers kinds by keys as they come: each tensor's in turn.
class KindNumbers {
 public:
  explicit KindNumbers(size_t tensors) { out_.kind_of.reserve(tensors); }

  void add(const std::string& key, bool odd) {
    const auto i = static_cast<int64_t>(out_.kind_of.size());
    if (odd) out_.odd.push_back(i);
    const auto [it, fresh] = kinds_.try_emplace(key, static_cast<int64_t>(out_.first.size()));
    if (fresh) out_.first.push_back(i);
    out_.kind_of.push_back(it->second);
  }
  LayoutKinds finished() { return std::move(out_); }

 private:
  LayoutKinds out_;
  std::unordered_map<std::string, int64_t> kinds_;
};

// A tensor may dispatch to Python: the GIL must be held.
LayoutKinds layout_kinds(const std::vector<at::Tensor>& tensors);

}  // namespace pyparam
