#include "table/match.h"

#include <c10/util/Exception.h>

#include <functional>
#include <string>
#include <string_view>

namespace pyparam {
namespace {

// All names of a table, put together one after the other.
class Names {
 public:
  explicit Names(const NameColumn& names) {
    size_t bytes = 0;
    for (size_t i = 0; i < names.size(); ++i) bytes += names.length(i);
    bytes_.reserve(bytes);
    ends_.reserve(names.size());
    NameColumn::Reader reader(names);
    for (size_t i = 0; i < names.size(); ++i) {
      bytes_.append(reader[i]);
      ends_.push_back(bytes_.size());
    }
  }
  size_t size() const { return ends_.size(); }
  std::string_view operator[](size_t i) const {
    const size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(bytes_).substr(begin, ends_[i] - begin);
  }

 private:
  std::string bytes_;
  std::vector<size_t> ends_;
};

// Positions by name: a hash table with open addressing, at most half full.
class Index {
 public:
  explicit Index(const Names& names)
      : names_(names),
        slots_(power_of_two_above(2 * names.size()), kFree),
        mask_(slots_.size() - 1) {}

  // The position of `name`, or kFree.
  int64_t find(std::string_view name) const { return slots_[slot_of(name)]; }

  // Adds name i; false if it is there already.
  bool add(size_t i) {
    int64_t& slot = slots_[slot_of(names_[i])];
    if (slot != kFree) return false;
    slot = static_cast<int64_t>(i);
    return true;
  }

  static constexpr int64_t kFree = -1;

 private:
  static size_t power_of_two_above(size_t n) {
    size_t power = 1;
    while (power <= n) power *= 2;
    return power;
  }
  size_t slot_of(std::string_view name) const {
    size_t slot = std::hash<std::string_view>{}(name)&mask_;
    while (slots_[slot] != kFree && names_[static_cast<size_t>(slots_[slot])] != name)
      slot = (slot + 1) & mask_;
    return slot;
  }

  const Names& names_;
  std::vector<int64_t> slots_;
  size_t mask_;
};

Index index_of(const char* verb, const char* side, const Names& names) {
  Index index(names);
  for (size_t i = 0; i < names.size(); ++i) {
    TORCH_CHECK_VALUE(index.add(i), verb, ": two parameters of ", side, " are named '", names[i],
                      "'; names must be unique");
  }
  return index;
}

}  // namespace

Matching match(const char* verb, const NameColumn& a, const NameColumn& b) {
  const Names names_a(a);
  const Names names_b(b);
  const Index of_a = index_of(verb, "a", names_a);
  const Index of_b = index_of(verb, "b", names_b);
  Matching out;
  out.in_a.reserve(a.size());
  out.in_b.reserve(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    // Two tables of one model list the same names at the same places.
    const bool in_step = i < b.size() && names_a[i] == names_b[i];
    const int64_t found = in_step ? static_cast<int64_t>(i) : of_b.find(names_a[i]);
    if (found == Index::kFree) {
      out.missing.push_back(static_cast<int64_t>(i));
    } else {
      out.in_a.push_back(static_cast<int64_t>(i));
      out.in_b.push_back(found);
    }
  }
  if (out.in_b.size() < b.size()) {
    for (size_t i = 0; i < b.size(); ++i) {
      if (of_a.find(names_b[i]) == Index::kFree) out.unexpected.push_back(static_cast<int64_t>(i));
    }
  }
  return out;
}

}  // namespace pyparam
