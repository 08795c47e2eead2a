#include "table/name_tree.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <unordered_map>

namespace pyparam {

namespace {

// Numbers pairs in the order in which they are first asked for.
class Pairs {
 public:
  std::pair<int64_t, bool> number(int64_t first, int64_t second) {
    const auto key = static_cast<uint64_t>(first) << 32 | static_cast<uint64_t>(second);
    const auto [it, fresh] = numbers_.try_emplace(key, static_cast<int64_t>(numbers_.size()));
    return {it->second, fresh};
  }

 private:
  std::unordered_map<uint64_t, int64_t> numbers_;
};

class Texts {
 public:
  explicit Texts(std::vector<std::string>& texts) : texts_(texts) {}

  int64_t number(std::string_view text) {
    if (text.size() == last_.size() && text == last_) return last_number_;
    last_ = text;
    const auto [it, fresh] = numbers_.try_emplace(last_, static_cast<int64_t>(texts_.size()));
    if (fresh) texts_.push_back(last_);
    last_number_ = it->second;
    return last_number_;
  }

 private:
  std::vector<std::string>& texts_;
  std::unordered_map<std::string, int64_t> numbers_;
  std::string last_ = "\xff";  // which no UTF-8 has
  int64_t last_number_ = -1;
};

uint32_t narrow(int64_t number) {
  if (number > std::numeric_limits<uint32_t>::max())
    throw std::length_error("name_tree: more than 2^32 parts of names");
  return static_cast<uint32_t>(number);
}

}  // namespace

NameTree name_tree(const NameColumn& names) {
  NameColumn::Reader reader(names);
  return name_tree(names.size(), [&](size_t row) -> std::string_view { return reader[row]; });
}

NameTree name_tree(size_t count, const std::function<std::string_view(size_t)>& name_of) {
  NameTree tree;
  Texts texts(tree.strings);
  tree.parents.push_back(0);
  tree.keys.push_back(narrow(texts.number("")));
  tree.owners.reserve(count);
  tree.attributes.reserve(count);
  Pairs children;  // (node, key): the number is that of the node below it, less one
  std::string last_path;
  int64_t last_owner = -1;
  for (size_t row = 0; row < count; ++row) {
    const std::string_view name = name_of(row);
    const size_t dot = name.rfind('.');
    int64_t node = 0;
    if (dot != std::string_view::npos) {
      const std::string_view path = name.substr(0, dot);
      if (last_owner >= 0 && path == last_path) {
        node = last_owner;
      } else {
        for (size_t begin = 0; begin <= path.size();) {
          const size_t end = std::min(path.find('.', begin), path.size());
          const int64_t key = texts.number(path.substr(begin, end - begin));
          const auto [number, fresh] = children.number(node, key);
          if (fresh) {
            tree.parents.push_back(narrow(node));
            tree.keys.push_back(narrow(key));
          }
          node = number + 1;
          begin = end + 1;
        }
        last_path = path;
        last_owner = node;
      }
    }
    tree.owners.push_back(narrow(node));
    tree.attributes.push_back(
        narrow(texts.number(dot == std::string_view::npos ? name : name.substr(dot + 1))));
  }
  return tree;
}

std::vector<int64_t> alike_names(const NameTree& tree, const std::vector<int64_t>& classes,
                                 const std::vector<bool>& bare) {
  if (classes.size() != tree.strings.size() || bare.size() != tree.strings.size()) {
    throw std::invalid_argument("alike_names: expected a class for each of the tree's strings");
  }
  const auto class_of = [&](uint32_t text) { return classes[text]; };
  const size_t nodes = tree.parents.size();
  std::vector<int64_t> alike(nodes, 0);
  std::vector<bool> plain(nodes, true);  // nothing but bare parts
  Pairs paths;
  for (size_t i = 1; i < nodes; ++i) {
    const size_t parent = tree.parents[i];
    alike[i] = paths.number(alike[parent], class_of(tree.keys[i])).first + 1;
    plain[i] = plain[parent] && bare[tree.keys[i]];
  }
  // Rows whose names are bare are numbered by the names themselves, behind all that nodes are.
  Pairs rows;
  std::vector<int64_t> out;
  out.reserve(tree.owners.size());
  for (size_t row = 0; row < tree.owners.size(); ++row) {
    const size_t owner = tree.owners[row];
    const uint32_t text = tree.attributes[row];
    const bool itself = plain[owner] && bare[text];
    const auto [number, fresh] = itself ? rows.number(static_cast<int64_t>(nodes + owner), text)
                                        : rows.number(alike[owner], class_of(text));
    out.push_back(number);
  }
  return out;
}

}  // namespace pyparam
