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

  // Where the bytes of a key are. Keys that are alike may share them.
  struct Text {
    uint64_t begin = 0;
    uint32_t length = 0;
  };

  NameColumn() : held_(std::make_shared<Held>()) { held_->nodes.push_back({0, 0, kRoot, 0}); }

  Text store(std::string_view key) {
    Held& held = own();
    const Text text{held.bytes.size(), static_cast<uint32_t>(key.size())};
    held.bytes.append(key);
    return text;
  }
  // The module named `key` inside the module at `parent`. The root adds no dot, and a module
  // without a name inside it has no path either.
  Node module(Node parent, Text key) {
    if (parent == kRoot && key.length == 0) return kRoot;
    Held& held = own();
    const size_t above = parent == kRoot ? 0 : held.nodes[parent].path_length + 1;
    held.nodes.push_back({key.begin, key.length, parent, above + key.length});
    return static_cast<Node>(held.nodes.size() - 1);
  }
  // Appends the parameter `attribute` of the module at `owner`.
  void append(Node owner, Text attribute) {
    own().leaves.push_back({attribute.begin, attribute.length, owner});
  }

  Node module(Node parent, std::string_view key) { return module(parent, store(key)); }
  void append(Node owner, std::string_view attribute) { append(owner, store(attribute)); }
  // Appends a whole qualified name; its attribute is what follows the last dot.
  void append(std::string_view name) { append(kRoot, name); }

  size_t size() const { return held_->leaves.size(); }

  std::string operator[](size_t i) const {
    std::string name(length(i), '\0');
    write(i, name.data());
    return name;
  }
  // The bytes of name i, and writing them to a buffer of that size (UTF-8, not terminated).
  size_t length(size_t i) const {
    const Leaf& leaf = held_->leaves[i];
    return leaf.owner == kRoot ? leaf.length
                               : held_->nodes[leaf.owner].path_length + 1 + leaf.length;
  }
  void write(size_t i, char* out) const {
    const Leaf& leaf = held_->leaves[i];
    held_->text_of(leaf).copy(out + (length(i) - leaf.length), leaf.length);
    if (leaf.owner == kRoot) return;
    out[held_->nodes[leaf.owner].path_length] = '.';
    held_->write_path(leaf.owner, kRoot, out);
  }

  // Puts names together one after another. What a name has in common with the one before stays, so
  // that in a walk's order each module's key is written once, however deep it lies.
  class Reader;

  std::string_view attribute(size_t i) const {
    const Leaf& leaf = held_->leaves[i];
    const std::string_view key = held_->text_of(leaf);
    const size_t dot = leaf.owner == kRoot ? key.rfind('.') : std::string_view::npos;
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
    held.bytes.shrink_to_fit();
    held.nodes.shrink_to_fit();
    held.leaves.shrink_to_fit();
  }

 private:
  // A module's key and a parameter's, `length` bytes from `begin` on, and the module that it is in.
  struct Module {
    uint64_t begin;
    uint32_t length;
    Node parent;  // stands before it
    size_t path_length;
  };
  struct Leaf {
    uint64_t begin;
    uint32_t length;
    Node owner;
  };

  struct Held {
    std::string bytes;
    std::vector<Module> nodes;
    std::vector<Leaf> leaves;                     // in table order
    std::shared_ptr<const EntrySums> entry_sums;  // null until asked for; read and set atomically

    template <typename Key>
    std::string_view text_of(const Key& key) const {
      return {bytes.data() + key.begin, key.length};
    }
    // Writes what the path of `node` has behind that of `above`, to where it belongs in `out`.
    void write_path(Node node, Node above, char* out) const {
      while (node != above) {
        const Module& module = nodes[node];
        text_of(module).copy(out + (module.path_length - module.length), module.length);
        node = module.parent;
        if (node != kRoot) out[nodes[node].path_length] = '.';
      }
    }
  };

  // To be added to: nobody else's, and with no sums.
  Held& own() {
    if (__builtin_expect(held_.use_count() > 1 || held_->entry_sums != nullptr, 0)) part();
    return *held_;
  }
  void part();
  std::shared_ptr<const EntrySums> make_entry_sums() const;

  std::shared_ptr<Held> held_;
};

class NameColumn::Reader {
 public:
  explicit Reader(const NameColumn& names) : held_(names.held_) {}

  // Name i. Holds until the next call.
  std::string_view operator[](size_t i) {
    const Leaf& leaf = held_->leaves[i];
    if (leaf.owner != owner_) go_to(leaf.owner);
    text_.resize(path_length_);
    if (owner_ != kRoot) text_.push_back('.');
    text_.append(held_->text_of(leaf));
    return text_;
  }

 private:
  void go_to(Node owner);

  std::shared_ptr<const Held> held_;
  Node owner_ = kRoot;
  size_t path_length_ = 0;  // of the owner's path, which the text begins with
  std::string text_;
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
