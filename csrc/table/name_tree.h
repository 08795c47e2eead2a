// Qualified names as the tree of modules that they describe, and which of them are alike.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "table/param_table.h"

namespace pyparam {

// Node 0 is the source itself and its own parent; a parent comes before its children. A name
// without a dot belongs to node 0; an empty part is a part too.
struct NameTree {
  std::vector<int64_t> parents;      // of each node
  std::vector<int64_t> keys;         // of each node: its name in its parent, a number of `strings`
  std::vector<int64_t> owners;       // of each row: the node it belongs to
  std::vector<int64_t> attributes;   // of each row: its name there
  std::vector<std::string> strings;  // numbered as they are first met, "" first
};

NameTree name_tree(const NameColumn& names);

// A number for each row, counted from 0 as they are first met: two rows have one where the classes
// of their parts are the same from first to last. `classes` has a class for each of the tree's
// strings; a name all of whose parts are `bare` is like itself alone.
std::vector<int64_t> alike_names(const NameTree& tree, const std::vector<int64_t>& classes,
                                 const std::vector<bool>& bare);

}  // namespace pyparam
