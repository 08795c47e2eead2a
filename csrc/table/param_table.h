// ParamTable: what a walk saw, as columns of plain data. It knows tensors and names, no modules.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pyparam {

struct EntrySums;

// Qualified names as a tree of keys: a module's path is stored once however many parameters lie
// below it, so a chain of 100,000 modules does not cost the sum of its path lengths. A name is put
// together when it is read. Copies share what they hold until one of them is added to.
class NameColumn {
 public:
  using Node = uint32_t;
  static constexpr Node kRoot = 0;

  NameColumn() : held_(std::make_shared<Held>()) { held_->nodes.push_back({0, 0, kRoot}); }

  // The module named `key` inside the module at `parent`.
  Node module(Node parent, std::string_view key) {
    Held& held = own();
    held.nodes.push_back(held.make(parent, key));
    return static_cast<Node>(held.nodes.size() - 1);
  }
  // Appends the parameter `attribute` of the module at `owner`.
  void append(Node owner, std::string_view attribute) {
    Held& held = own();
    held.leaves.push_back(held.make(owner, attribute));
  }
  // Appends a whole qualified name; its attribute is what follows the last dot.
  void append(std::string_view name) { append(kRoot, name); }

  size_t size() const { return held_->leaves.size(); }

  std::string operator[](size_t i) const {
    std::string name(length(held_->leaves[i]), '\0');
    write(i, name.data());
    return name;
  }
  // The bytes of name i, and writing them to a buffer of that size (UTF-8, not terminated).
  size_t length(size_t i) const { return length(held_->leaves[i]); }
  void write(size_t i, char* out) const { write(held_->leaves[i], out + length(held_->leaves[i])); }

  std::string_view attribute(size_t i) const {
    const Key& leaf = held_->leaves[i];
    const std::string_view key = key_of(leaf);
    const size_t dot = leaf.parent == kRoot ? key.rfind('.') : std::string_view::npos;
    return dot == std::string_view::npos ? key : key.substr(dot + 1);
  }
  // The qualified name of the owning module: "" for the root.
  std::string owner(size_t i) const {
    std::string name = (*this)[i];
    const size_t attribute_length = attribute(i).size();
    name.resize(name.size() > attribute_length ? name.size() - attribute_length - 1 : 0);
    return name;
  }

  // What the names add to a fingerprint (table/name_sums.h), worked out when it is first asked for
  // and then kept with them.
  std::shared_ptr<const EntrySums> entry_sums() const;

  void reserve(size_t names) { own().leaves.reserve(names); }
  void shrink_to_fit() {
    Held& held = own();
    held.keys.shrink_to_fit();
    held.nodes.shrink_to_fit();
    held.leaves.shrink_to_fit();
  }

 private:
  struct Key {
    uint64_t begin;
    uint32_t length;
    Node parent;
  };

  struct Held {
    std::string keys;
    std::vector<Key> nodes;                       // modules
    std::vector<Key> leaves;                      // parameters, in table order
    std::shared_ptr<const EntrySums> entry_sums;  // null until asked for; read and set atomically

    Key make(Node parent, std::string_view key) {
      const Key made{keys.size(), static_cast<uint32_t>(key.size()), parent};
      keys.append(key);
      return made;
    }
  };

  // To be added to: nobody else's.
  Held& own() {
    if (held_.use_count() > 1) held_ = std::make_shared<Held>(*held_);
    if (held_->entry_sums != nullptr) held_->entry_sums.reset();
    return *held_;
  }
  std::string_view key_of(const Key& key) const {
    return std::string_view(held_->keys).substr(key.begin, key.length);
  }
  std::shared_ptr<const EntrySums> make_entry_sums() const;
  // The root adds no dot.
  size_t length(Key key) const {
    size_t total = key.length;
    while (key.parent != kRoot) {
      key = held_->nodes[key.parent];
      total += key.length + 1;
    }
    return total;
  }
  void write(Key key, char* end) const {
    for (;;) {
      end -= key.length;
      key_of(key).copy(end, key.length);
      if (key.parent == kRoot) return;
      *--end = '.';
      key = held_->nodes[key.parent];
    }
  }

  std::shared_ptr<Held> held_;
};

// Both columns have one entry a parameter, in the order of nn.Module.named_parameters. A tensor's
// Python object lives as long as its at::Tensor, so the columns keep identity (a Parameter comes
// back as the same object).
struct ParamTable {
  NameColumn names;
  std::vector<at::Tensor> tensors;

  size_t size() const { return tensors.size(); }
};

}  // namespace pyparam
