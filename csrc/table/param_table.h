// ParamTable: what a walk saw, as columns of plain data. It knows tensors and names, no modules.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pyparam {

// Qualified names in one buffer: a name costs its bytes and 12 more.
class NameColumn {
 public:
  size_t size() const { return ends_.size(); }

  // Appends prefix + "." + attribute, or the attribute alone where the prefix is empty.
  void append(std::string_view prefix, std::string_view attribute) {
    if (!prefix.empty()) {
      bytes_.append(prefix);
      bytes_.push_back('.');
    }
    bytes_.append(attribute);
    ends_.push_back(bytes_.size());
    attribute_lengths_.push_back(static_cast<uint32_t>(attribute.size()));
  }
  // Appends a qualified name whose attribute is what follows its last dot.
  void append(std::string_view name) {
    const size_t dot = name.rfind('.');
    bytes_.append(name);
    ends_.push_back(bytes_.size());
    attribute_lengths_.push_back(
        static_cast<uint32_t>(dot == std::string_view::npos ? name.size() : name.size() - dot - 1));
  }

  std::string_view operator[](size_t i) const {
    const size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(begin, ends_[i] - begin);
  }
  std::string_view attribute(size_t i) const {
    const std::string_view name = (*this)[i];
    return name.substr(name.size() - attribute_lengths_[i]);
  }
  // The qualified name of the owning module: "" for the root.
  std::string_view owner(size_t i) const {
    const std::string_view name = (*this)[i];
    const size_t length = name.size() - attribute_lengths_[i];
    return name.substr(0, length == 0 ? 0 : length - 1);
  }

  void reserve(size_t names) {
    ends_.reserve(names);
    attribute_lengths_.reserve(names);
  }

 private:
  std::string bytes_;
  std::vector<size_t> ends_;
  std::vector<uint32_t> attribute_lengths_;
};

// Both columns have one entry a parameter, in the order of nn.Module.named_parameters. A tensor's Python object
// lives as long as its at::Tensor, so the columns keep identity (a Parameter comes back as the same object).
struct ParamTable {
  NameColumn names;
  std::vector<at::Tensor> tensors;

  size_t size() const { return tensors.size(); }
};

}  // namespace pyparam
