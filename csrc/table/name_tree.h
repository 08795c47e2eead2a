// Qualified names as the tree of modules that they describe, and which of them are alike.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "table/param_table.h"

namespace pyparam {

// Node 0 is the source itself and its own parent; a parent comes before its children. A name
// without a dot belongs to node 0; an empty part is a part too.
struct NameTree {
  std::vector<uint32_t> parents;     // of each node
  std::vector<uint32_t> keys;        // of each node: its name in its parent, a number of `strings`
  std::vector<uint32_t> owners;      // of each row: the node it belongs to
  std::vector<uint32_t> attributes;  // of each row: its name there
  std::vector<std::string> strings;  // numbered as they are first met, "" first
};

NameTree name_tree(const NameColumn& names);
// Of so many names, each of which is asked for once, in order, and holds until the next.
NameTree name_tree(size_t count, const std::function<std::string_view(size_t)>& name);

// A number for each row, counted from 0 as they are first met: two rows have one where the classes
// of their parts are the same from first to last. `classes` has a class for each of the tree's
// strings; a name all of whose parts are `bare` is like itself alone.
std::vector<int64_t> alike_names(const NameTree& tree, const std::vector<int64_t>& classes,
                                 const std::vector<bool>& bare);

}  // namespace pyparam
