// The tree of a model as plain data: what is where, which blocks are alike, and what each holds.
//
// It knows tensors, names and labels, no modules. Whoever builds it (from modules, or from
// qualified names) opens and closes nodes in pre-order and adds each node's own tensors before its
// children.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "table/param_table.h"
#include "table/sharing.h"

namespace pyparam {

// Strings as small numbers; equal strings have equal numbers.
class Strings {
 public:
  Strings() = default;
  Strings(Strings&&) = default;
  Strings& operator=(Strings&&) = default;
  uint32_t number(std::string_view text);
  const std::string& operator[](uint32_t number) const { return *texts_[number]; }

 private:
  std::unordered_map<std::string, uint32_t> numbers_;
  std::vector<const std::string*> texts_;  // keys of the map, which stay where they are
};

// Splits "block 12" into the length of "block " and 12; -1 where no number (or a too long one) ends
// the name.
std::pair<size_t, int64_t> numbered(const std::string& name);

struct OutlineNode {
  uint32_t name;
  uint32_t label;       // what a person calls the module's class
  const void* type;     // which class it is; compared, never followed
  int64_t parent;       // -1 for the root
  int64_t end;          // the node after this subtree
  int64_t first_entry;  // own entries are [first_entry, last_entry)
  int64_t last_entry;
  int64_t repeats;  // the earlier node that is the same module, or -1; such a node has nothing of
                    // its own
};

struct OutlineEntry {
  uint32_t name;
  int64_t node;
  bool buffer;
};

// What a subtree holds, of parameters or of buffers. `names` and `values` count every name;
// `tensors`, `unique`, `bytes` and `trainable` count memory once.
struct Holding {
  int64_t names = 0;
  int64_t values = 0;
  int64_t tensors = 0;
  int64_t unique = 0;
  int64_t bytes = 0;
  int64_t trainable = 0;  // values, once
};

// Consecutive children that are alike. count is 1 where nothing is folded.
struct OutlineGroup {
  int64_t first;
  int64_t last;
  int64_t count;
  bool same_module;
};

class Outline {
 public:
  // --- building
  int64_t open(std::string_view name, std::string_view label, const void* type,
               int64_t repeats = -1);
  int64_t open(uint32_t name, uint32_t label, const void* type, int64_t repeats);
  void add(uint32_t name, const at::Tensor& tensor, bool buffer);
  void close();
  void finish();
  Strings& strings() { return strings_; }

  // --- reading, once finished
  size_t size() const { return nodes_.size(); }
  const OutlineNode& node(int64_t i) const { return nodes_.at(static_cast<size_t>(i)); }
  const std::vector<OutlineEntry>& entries() const { return entries_; }
  const std::vector<at::Tensor>& tensors() const { return tensors_; }
  const Sharing& sharing() const { return sharing_; }
  const std::string& text(uint32_t number) const { return strings_[number]; }

  std::string name_of_node(int64_t node) const;
  std::string name_of_entry(int64_t entry) const;
  // What lies below a node, also by way of modules that stand elsewhere in the tree as well.
  Holding holding(int64_t node, bool buffers) const;
  std::vector<OutlineGroup> groups(int64_t node) const;
  std::vector<int64_t> children(int64_t node) const;

  // The child, or the node's own tensor, of that name; -1 where there is none.
  int64_t child(int64_t node, std::string_view name) const;
  int64_t own_entry(int64_t node, std::string_view name) const;

  // The outline of a subtree's entries whose mask is set and of the nodes above them. Nodes that
  // repeat a module have no entries and drop out.
  Outline restricted(const std::vector<bool>& keep, int64_t root) const;

 private:
  struct Facts {
    int64_t values, bytes;
    bool trainable;
  };
  struct Span {
    int64_t begin, end;
  };
  int64_t entries_end(int64_t node) const;
  std::vector<Span> spans(int64_t node) const;
  void measure();
  void count_names();
  void sign();
  bool alike(int64_t a, int64_t b) const;
  bool share_alike(int64_t a, int64_t b) const;

  Strings strings_;
  std::vector<OutlineNode> nodes_;
  std::vector<OutlineEntry> entries_;
  std::vector<at::Tensor> tensors_;
  std::vector<int64_t> open_, closed_;  // the nodes still open; all nodes in the order they closed
  Sharing sharing_;
  std::vector<int64_t> tied_;       // entries in a cluster, ascending
  std::vector<int64_t> repeating_;  // nodes that repeat a module, ascending
  std::vector<Facts> facts_;
  std::vector<Holding>
      before_[2];  // [buffers][entry]: sums over all entries before it, each counted whole
  std::vector<Holding>
      named_[2];  // [buffers][node]: names and values with repeated modules counted again
  std::vector<int32_t> signatures_;
};

// The tree that a table's qualified names describe. `buffer` says which rows are buffers; empty:
// none.
Outline outline_of_table(const ParamTable& table, const std::vector<bool>& buffer);

}  // namespace pyparam
