#include "table/name_tree.h"

#include <algorithm>
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

}  // namespace

NameTree name_tree(const NameColumn& names) {
  NameTree tree;
  Texts texts(tree.strings);
  tree.parents.push_back(0);
  tree.keys.push_back(texts.number(""));
  tree.owners.reserve(names.size());
  tree.attributes.reserve(names.size());
  Pairs children;  // (node, key): the number is that of the node below it, less one
  std::string last_path;
  int64_t last_owner = -1;
  NameColumn::Reader reader(names);
  for (size_t row = 0; row < names.size(); ++row) {
    const std::string_view name = reader[row];
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
            tree.parents.push_back(node);
            tree.keys.push_back(key);
          }
          node = number + 1;
          begin = end + 1;
        }
        last_path = path;
        last_owner = node;
      }
    }
    tree.owners.push_back(node);
    tree.attributes.push_back(
        texts.number(dot == std::string_view::npos ? name : name.substr(dot + 1)));
  }
  return tree;
}

std::vector<int64_t> alike_names(const NameTree& tree, const std::vector<int64_t>& classes,
                                 const std::vector<bool>& bare) {
  if (classes.size() != tree.strings.size() || bare.size() != tree.strings.size()) {
    throw std::invalid_argument("alike_names: expected a class for each of the tree's strings");
  }
  const auto class_of = [&](int64_t text) { return classes[static_cast<size_t>(text)]; };
  const size_t nodes = tree.parents.size();
  std::vector<int64_t> alike(nodes, 0);
  std::vector<bool> plain(nodes, true);  // nothing but bare parts
  Pairs paths;
  for (size_t i = 1; i < nodes; ++i) {
    const auto parent = static_cast<size_t>(tree.parents[i]);
    alike[i] = paths.number(alike[parent], class_of(tree.keys[i])).first + 1;
    plain[i] = plain[parent] && bare[static_cast<size_t>(tree.keys[i])];
  }
  // Rows whose names are bare are numbered by the names themselves, behind all that nodes are.
  Pairs rows;
  std::vector<int64_t> out;
  out.reserve(tree.owners.size());
  for (size_t row = 0; row < tree.owners.size(); ++row) {
    const auto owner = static_cast<size_t>(tree.owners[row]);
    const int64_t text = tree.attributes[row];
    const bool itself = plain[owner] && bare[static_cast<size_t>(text)];
    const auto [number, fresh] = itself ? rows.number(static_cast<int64_t>(nodes + owner), text)
                                        : rows.number(alike[owner], class_of(text));
    out.push_back(number);
  }
  return out;
}

}  // namespace pyparam
