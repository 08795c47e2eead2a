// From a table's qualified names to an Outline.
#include <algorithm>
#include <stdexcept>

#include "table/outline.h"

namespace pyparam {

namespace {

// The tree of a table's names while it is found: the rows come in any order.
struct Branch {
  uint32_t name;
  std::vector<size_t> rows;
  std::vector<size_t> children;
};

std::vector<Branch> branches_of(const ParamTable& table, Strings& strings) {
  std::vector<Branch> branches{{strings.number(""), {}, {}}};
  std::unordered_map<uint64_t, size_t> places;  // (branch above, name) to branch
  places.reserve(table.size());
  std::string last_owner;
  size_t last = 0;
  for (size_t row = 0; row < table.size(); ++row) {
    // An owner of "" is the root, unless a dot leads the name: then it is a part without letters.
    const bool owned = table.names.length(row) != table.names.attribute(row).size();
    const std::string owner = table.names.owner(row);
    if (!owned || last == 0 || owner != last_owner) {
      last = 0;
      for (size_t begin = 0; owned && begin <= owner.size();) {
        const size_t dot = std::min(owner.find('.', begin), owner.size());
        const uint32_t name = strings.number(std::string_view(owner).substr(begin, dot - begin));
        const auto [it, fresh] =
            places.try_emplace((static_cast<uint64_t>(last) << 32) | name, branches.size());
        if (fresh) {
          branches[last].children.push_back(branches.size());
          branches.push_back({name, {}, {}});
        }
        last = it->second;
        begin = dot + 1;
      }
      last_owner = owner;
    }
    branches[last].rows.push_back(row);
  }
  return branches;
}

// Children that are numbered ("2", "block 2") go in the order of their numbers: a checkpoint lists
// "10" before "2".
void sort_numbers(std::vector<Branch>& branches, const Strings& strings) {
  const auto name = [&](size_t child) -> const std::string& {
    return strings[branches[child].name];
  };
  for (Branch& branch : branches) {
    if (branch.children.size() < 2) continue;
    const std::string& first = name(branch.children.front());
    const size_t length = numbered(first).first;
    const auto in_series = [&](size_t child) {
      const auto [prefix, number] = numbered(name(child));
      return number >= 0 && prefix == length &&
             name(child).compare(0, length, first, 0, length) == 0;
    };
    if (!std::all_of(branch.children.begin(), branch.children.end(), in_series)) continue;
    std::stable_sort(branch.children.begin(), branch.children.end(), [&](size_t a, size_t b) {
      return numbered(name(a)).second < numbered(name(b)).second;
    });
  }
}

}  // namespace

Outline outline_of_table(const ParamTable& table, const std::vector<bool>& buffer) {
  if (!buffer.empty() && buffer.size() != table.size()) {
    throw std::invalid_argument("outline: names and kinds differ in length");
  }
  Outline outline;
  std::vector<Branch> branches = branches_of(table, outline.strings());
  sort_numbers(branches, outline.strings());
  const uint32_t no_label = outline.strings().number("");
  struct Step {
    size_t branch;
    size_t next;
  };
  std::vector<Step> steps;
  const auto enter = [&](size_t branch) {
    outline.open(branches[branch].name, no_label, nullptr, -1);
    for (size_t row : branches[branch].rows) {
      outline.add(outline.strings().number(table.names.attribute(row)), table.tensors[row],
                  !buffer.empty() && buffer[row]);
    }
    steps.push_back({branch, 0});
  };
  enter(0);
  while (!steps.empty()) {
    Step& step = steps.back();
    if (step.next == branches[step.branch].children.size()) {
      outline.close();
      steps.pop_back();
      continue;
    }
    enter(branches[step.branch].children[step.next++]);
  }
  outline.finish();
  return outline;
}

}  // namespace pyparam
