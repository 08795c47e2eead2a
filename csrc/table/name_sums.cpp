#include "table/name_sums.h"

#include <cstdint>
#include <memory>
#include <vector>

#include "table/param_table.h"

namespace pyparam {
namespace {

// Whether no two names are alike: those with different sums are not, others are compared.
bool are_unique(const NameColumn& names, const std::vector<hash::Sums>& sums) {
  size_t slots = 16;
  while (slots < 2 * sums.size()) slots *= 2;
  // An index and one, and beside it half of its name's sum.
  struct Slot {
    uint32_t next = 0;
    uint32_t half = 0;
  };
  std::vector<Slot> taken(slots);
  for (size_t i = 0; i < sums.size(); ++i) {
    const auto half = static_cast<uint32_t>(sums[i].plain >> 32);
    size_t at = sums[i].plain & (slots - 1);
    for (; taken[at].next != 0; at = (at + 1) & (slots - 1)) {
      if (taken[at].half != half) continue;
      const size_t other = taken[at].next - 1;
      if (sums[other].plain == sums[i].plain && sums[other].placed == sums[i].placed &&
          names[other] == names[i])
        return false;
    }
    taken[at] = {static_cast<uint32_t>(i + 1), half};
  }
  return true;
}

}  // namespace

std::shared_ptr<const EntrySums> NameColumn::make_entry_sums() const {
  std::vector<hash::NameSums> modules(held_->nodes.size());
  const auto inside = [&](Node parent, std::string_view key) {
    hash::NameSums sums = modules[parent];
    if (parent != kRoot) sums.append(".", 1);
    sums.append(key.data(), static_cast<int64_t>(key.size()));
    return sums;
  };
  // A module stands behind the one that it is in.
  for (size_t node = 1; node < modules.size(); ++node) {
    const Module& module = held_->nodes[node];
    modules[node] = inside(module.parent, held_->text_of(module));
  }
  EntrySums out;
  out.sums.reserve(size());
  for (const Leaf& leaf : held_->leaves)
    out.sums.push_back(inside(leaf.owner, held_->text_of(leaf)).sums());
  out.unique = are_unique(*this, out.sums);
  return std::make_shared<const EntrySums>(std::move(out));
}

std::shared_ptr<const EntrySums> NameColumn::entry_sums() const {
  std::shared_ptr<const EntrySums> known = std::atomic_load(&held_->entry_sums);
  if (known == nullptr) {
    // Two threads may work it out, to the same.
    known = make_entry_sums();
    std::atomic_store(&held_->entry_sums, known);
  }
  return known;
}

}  // namespace pyparam
