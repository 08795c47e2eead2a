#include "table/outline.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <unordered_set>

namespace pyparam {

namespace {

// Bytes of a trivially copyable value at the end of a key.
template <typename T>
void put(std::string& key, T value) {
  key.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void put_shape(std::string& key, const at::Tensor& tensor) {
  try {
    const auto sizes = tensor.sizes();
    put(key, static_cast<uint32_t>(sizes.size()));
    key.append(reinterpret_cast<const char*>(sizes.data()), sizes.size() * sizeof(int64_t));
  } catch (const std::exception&) {
    // Nested or symbolic: alike only to itself.
    put(key, static_cast<uint32_t>(-1));
    put(key, tensor.unsafeGetTensorImpl());
  }
}

int64_t saturating_add(int64_t a, int64_t b) {
  int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? std::numeric_limits<int64_t>::max() : sum;
}

bool follows(const std::string& a, const std::string& b) {
  const auto [length_a, number_a] = numbered(a);
  const auto [length_b, number_b] = numbered(b);
  return number_a >= 0 && number_b == number_a + 1 && length_a == length_b &&
         a.compare(0, length_a, b, 0, length_b) == 0;
}

std::string joined(const std::vector<const std::string*>& parts) {
  std::string name;
  for (const std::string* part : parts) {
    if (part != parts.front() || !name.empty()) name.push_back('.');
    name.append(*part);
  }
  return name;
}

}  // namespace

std::pair<size_t, int64_t> numbered(const std::string& name) {
  size_t begin = name.size();
  while (begin > 0 && name[begin - 1] >= '0' && name[begin - 1] <= '9') --begin;
  if (begin == name.size() || name.size() - begin > 18) return {name.size(), -1};
  return {begin, std::stoll(name.substr(begin))};
}

uint32_t Strings::number(std::string_view text) {
  const auto [it, fresh] =
      numbers_.try_emplace(std::string(text), static_cast<uint32_t>(texts_.size()));
  if (fresh) texts_.push_back(&it->first);
  return it->second;
}

int64_t Outline::open(std::string_view name, std::string_view label, const void* type,
                      int64_t repeats) {
  return open(strings_.number(name), strings_.number(label), type, repeats);
}

int64_t Outline::open(uint32_t name, uint32_t label, const void* type, int64_t repeats) {
  const auto index = static_cast<int64_t>(nodes_.size());
  const auto entry = static_cast<int64_t>(entries_.size());
  nodes_.push_back(
      {name, label, type, open_.empty() ? -1 : open_.back(), -1, entry, entry, repeats});
  if (repeats >= 0) repeating_.push_back(index);
  open_.push_back(index);
  return index;
}

void Outline::add(uint32_t name, const at::Tensor& tensor, bool buffer) {
  OutlineNode& node = nodes_[static_cast<size_t>(open_.back())];
  entries_.push_back({name, open_.back(), buffer});
  tensors_.push_back(tensor);
  node.last_entry = static_cast<int64_t>(entries_.size());
}

void Outline::close() {
  const int64_t index = open_.back();
  open_.pop_back();
  nodes_[static_cast<size_t>(index)].end = static_cast<int64_t>(nodes_.size());
  closed_.push_back(index);
}

void Outline::finish() {
  if (!open_.empty() || nodes_.empty()) {
    throw std::logic_error("pyparam internal error, please report: an outline with open nodes");
  }
  sharing_ = find_sharing(tensors_);
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (sharing_.cluster[i] >= 0) tied_.push_back(static_cast<int64_t>(i));
  }
  measure();
  count_names();
  sign();
}

int64_t Outline::entries_end(int64_t node) const {
  const auto end = static_cast<size_t>(nodes_[static_cast<size_t>(node)].end);
  return end < nodes_.size() ? nodes_[end].first_entry : static_cast<int64_t>(entries_.size());
}

void Outline::measure() {
  facts_.reserve(entries_.size());
  Holding sums[2];
  for (auto& sum : before_) sum.reserve(entries_.size() + 1);
  for (size_t i = 0; i < entries_.size(); ++i) {
    for (int kind : {0, 1}) before_[kind].push_back(sums[kind]);
    const Facts facts{elements_of(tensors_[i]), bytes_of(tensors_[i]),
                      tensors_[i].requires_grad() && !entries_[i].buffer};
    facts_.push_back(facts);
    Holding& sum = sums[entries_[i].buffer ? 1 : 0];
    sum.names += 1;
    sum.values += facts.values;
    sum.tensors += 1;
    sum.unique += facts.values;
    sum.bytes += facts.bytes;
    sum.trainable += facts.trainable ? facts.values : 0;
  }
  for (int kind : {0, 1}) before_[kind].push_back(sums[kind]);
}

// Post-order: the module that a node repeats has been counted before, unless it is an ancestor (a
// cycle).
void Outline::count_names() {
  std::vector<bool> done(nodes_.size(), false);
  for (int kind : {0, 1}) named_[kind].assign(nodes_.size(), Holding{});
  for (int64_t i : closed_) {
    const OutlineNode& node = nodes_[static_cast<size_t>(i)];
    for (int kind : {0, 1}) {
      Holding& own = named_[kind][static_cast<size_t>(i)];
      if (node.repeats >= 0) {
        if (done[static_cast<size_t>(node.repeats)])
          own = named_[kind][static_cast<size_t>(node.repeats)];
      } else {
        const auto first = static_cast<size_t>(node.first_entry),
                   last = static_cast<size_t>(node.last_entry);
        own.names =
            saturating_add(own.names, before_[kind][last].names - before_[kind][first].names);
        own.values =
            saturating_add(own.values, before_[kind][last].values - before_[kind][first].values);
      }
      if (node.parent >= 0) {
        Holding& above = named_[kind][static_cast<size_t>(node.parent)];
        above.names = saturating_add(above.names, own.names);
        above.values = saturating_add(above.values, own.values);
      }
    }
    done[static_cast<size_t>(i)] = true;
  }
}

// Every subtree gets a number; two subtrees have the same one exactly where their classes, names,
// shapes, dtypes, devices, layouts and frozen states are the same all the way down. A node's key
// holds its children's numbers, so the whole is linear in the size of the model. Which tensor a
// tied one is tied to is not in it: see share_alike.
void Outline::sign() {
  signatures_.assign(nodes_.size(), -1);
  std::unordered_map<std::string, int32_t> numbers;
  std::string key;
  for (int64_t i : closed_) {
    const OutlineNode& node = nodes_[static_cast<size_t>(i)];
    key.clear();
    if (node.repeats >= 0) {
      put(key, 'R');
      put(key, signatures_[static_cast<size_t>(node.repeats)]);
    } else {
      put(key, 'M');
      put(key, node.type);
      put(key, node.label);
      put(key, node.last_entry - node.first_entry);
      for (int64_t e = node.first_entry; e < node.last_entry; ++e) {
        const auto at = static_cast<size_t>(e);
        const at::Tensor& tensor = tensors_[at];
        put(key, entries_[at].name);
        const unsigned flags = (entries_[at].buffer ? 1u : 0u) |
                               (tensor.requires_grad() ? 2u : 0u) |
                               (sharing_.cluster[at] >= 0 ? 4u : 0u);
        put(key, static_cast<uint8_t>(flags));
        put(key, tensor.scalar_type());
        put(key, tensor.device().type());
        put(key, tensor.device().index());
        put(key, tensor.layout());
        put_shape(key, tensor);
      }
      for (int64_t child = i + 1; child < node.end;
           child = nodes_[static_cast<size_t>(child)].end) {
        put(key, nodes_[static_cast<size_t>(child)].name);
        put(key, signatures_[static_cast<size_t>(child)]);
      }
    }
    const auto [it, fresh] = numbers.try_emplace(key, static_cast<int32_t>(numbers.size()));
    signatures_[static_cast<size_t>(i)] = it->second;
  }
}

// Whether two subtrees of the same signature repeat the same modules and tie the same tensors:
// either the very same ones, or their own at the same places.
bool Outline::share_alike(int64_t a, int64_t b) const {
  const auto same_place = [](int64_t first_a, int64_t first_b, int64_t begin_a, int64_t begin_b,
                             int64_t end_b) {
    if (first_a == first_b) return true;
    return first_b >= begin_b && first_b < end_b && first_a - begin_a == first_b - begin_b;
  };
  const auto in_range = [](const std::vector<int64_t>& sorted, int64_t begin, int64_t end) {
    return std::make_pair(std::lower_bound(sorted.begin(), sorted.end(), begin),
                          std::lower_bound(sorted.begin(), sorted.end(), end));
  };
  const int64_t begin_a = nodes_[static_cast<size_t>(a)].first_entry,
                begin_b = nodes_[static_cast<size_t>(b)].first_entry;
  const int64_t end_b = entries_end(b);
  auto [tied_a, tied_a_end] = in_range(tied_, begin_a, entries_end(a));
  auto [tied_b, tied_b_end] = in_range(tied_, begin_b, end_b);
  if (tied_a_end - tied_a != tied_b_end - tied_b) return false;
  const auto first = [&](int64_t entry) {
    return sharing_.members[static_cast<size_t>(sharing_.cluster[static_cast<size_t>(entry)])]
        .front();
  };
  for (; tied_a != tied_a_end; ++tied_a, ++tied_b) {
    if (!same_place(first(*tied_a), first(*tied_b), begin_a, begin_b, end_b)) return false;
  }
  const int64_t nodes_end_b = nodes_[static_cast<size_t>(b)].end;
  auto [again_a, again_a_end] = in_range(repeating_, a, nodes_[static_cast<size_t>(a)].end);
  auto [again_b, again_b_end] = in_range(repeating_, b, nodes_end_b);
  if (again_a_end - again_a != again_b_end - again_b) return false;
  for (; again_a != again_a_end; ++again_a, ++again_b) {
    if (!same_place(nodes_[static_cast<size_t>(*again_a)].repeats,
                    nodes_[static_cast<size_t>(*again_b)].repeats, a, b, nodes_end_b)) {
      return false;
    }
  }
  return true;
}

bool Outline::alike(int64_t a, int64_t b) const {
  if (nodes_[static_cast<size_t>(b)].repeats == a) return true;
  return signatures_[static_cast<size_t>(a)] == signatures_[static_cast<size_t>(b)] &&
         share_alike(a, b);
}

// Neighbours are folded where they are alike and either numbered in a row or blocks of several
// modules.
std::vector<OutlineGroup> Outline::groups(int64_t node) const {
  std::vector<OutlineGroup> out;
  const int64_t end = this->node(node).end;
  for (int64_t child = node + 1; child < end; child = nodes_[static_cast<size_t>(child)].end) {
    const OutlineNode& next = nodes_[static_cast<size_t>(child)];
    if (!out.empty()) {
      OutlineGroup& group = out.back();
      const OutlineNode& first = nodes_[static_cast<size_t>(group.first)];
      const OutlineNode& last = nodes_[static_cast<size_t>(group.last)];
      const bool block = first.end - group.first > 1;
      const bool same =
          next.repeats >= 0 && (next.repeats == group.first || next.repeats == first.repeats);
      if ((block || follows(strings_[last.name], strings_[next.name])) &&
          (group.count == 1 || same == group.same_module) && alike(group.first, child)) {
        group.last = child;
        group.count += 1;
        group.same_module = same;
        continue;
      }
    }
    out.push_back({child, child, 1, false});
  }
  return out;
}

std::vector<int64_t> Outline::children(int64_t node) const {
  std::vector<int64_t> out;
  const int64_t end = this->node(node).end;
  for (int64_t child = node + 1; child < end; child = nodes_[static_cast<size_t>(child)].end)
    out.push_back(child);
  return out;
}

std::string Outline::name_of_node(int64_t node) const {
  std::vector<const std::string*> parts;
  for (int64_t i = node; this->node(i).parent >= 0; i = nodes_[static_cast<size_t>(i)].parent) {
    parts.push_back(&strings_[nodes_[static_cast<size_t>(i)].name]);
  }
  std::reverse(parts.begin(), parts.end());
  return joined(parts);
}

std::string Outline::name_of_entry(int64_t entry) const {
  const OutlineEntry& found = entries_.at(static_cast<size_t>(entry));
  std::string name = name_of_node(found.node);
  if (node(found.node).parent >= 0) name.push_back('.');
  return name.append(strings_[found.name]);
}

// The entries of a subtree, as ascending disjoint ranges: its own, and those of modules it repeats
// that stand before it.
std::vector<Outline::Span> Outline::spans(int64_t node) const {
  std::vector<Span> found;
  std::vector<int64_t> left{node};
  std::unordered_set<int64_t> taken;
  while (!left.empty()) {
    int64_t at = left.back();
    left.pop_back();
    if (this->node(at).repeats >= 0) at = nodes_[static_cast<size_t>(at)].repeats;
    if (!taken.insert(at).second) continue;
    const int64_t end = nodes_[static_cast<size_t>(at)].end;
    found.push_back({nodes_[static_cast<size_t>(at)].first_entry, entries_end(at)});
    for (auto it = std::lower_bound(repeating_.begin(), repeating_.end(), at);
         it != repeating_.end() && *it < end; ++it) {
      const int64_t original = nodes_[static_cast<size_t>(*it)].repeats;
      if (original < at || original >= end) left.push_back(original);
    }
  }
  std::sort(found.begin(), found.end(),
            [](const Span& a, const Span& b) { return a.begin < b.begin; });
  std::vector<Span> out;
  for (const Span& span : found) {
    if (!out.empty() && span.begin < out.back().end) {
      out.back().end = std::max(out.back().end, span.end);
    } else {
      out.push_back(span);
    }
  }
  return out;
}

// Sums over the subtree's entries, less what its tied ones share with earlier ones among them.
Holding Outline::holding(int64_t node, bool buffers) const {
  const int kind = buffers ? 1 : 0;
  const Holding& named = named_[kind][static_cast<size_t>(
      this->node(node).repeats >= 0 ? nodes_[static_cast<size_t>(node)].repeats : node)];
  Holding out;
  out.names = named.names;
  out.values = named.values;
  std::unordered_set<int64_t> clusters;
  for (const Span& span : spans(node)) {
    const Holding &low = before_[kind][static_cast<size_t>(span.begin)],
                  &high = before_[kind][static_cast<size_t>(span.end)];
    out.tensors += high.tensors - low.tensors;
    out.unique += high.unique - low.unique;
    out.bytes += high.bytes - low.bytes;
    out.trainable += high.trainable - low.trainable;
    for (auto it = std::lower_bound(tied_.begin(), tied_.end(), span.begin);
         it != tied_.end() && *it < span.end; ++it) {
      const auto entry = static_cast<size_t>(*it);
      if (entries_[entry].buffer != buffers || clusters.insert(sharing_.cluster[entry]).second)
        continue;
      const Facts& facts = facts_[entry];
      const int64_t fresh = sharing_.fresh_bytes[entry];
      const int64_t shared_bytes = facts.bytes - fresh;
      const auto part = facts.bytes == 0
                            ? 1.0
                            : static_cast<double>(shared_bytes) / static_cast<double>(facts.bytes);
      const int64_t shared = fresh == 0
                                 ? facts.values
                                 : static_cast<int64_t>(static_cast<double>(facts.values) * part);
      out.bytes -= shared_bytes;
      out.unique -= shared;
      out.tensors -= fresh == 0 ? 1 : 0;
      out.trainable -= facts.trainable ? shared : 0;
    }
  }
  return out;
}

int64_t Outline::child(int64_t node, std::string_view name) const {
  const int64_t end = this->node(node).end;
  for (int64_t child = node + 1; child < end; child = nodes_[static_cast<size_t>(child)].end) {
    if (strings_[nodes_[static_cast<size_t>(child)].name] == name) return child;
  }
  return -1;
}

int64_t Outline::own_entry(int64_t node, std::string_view name) const {
  for (int64_t e = this->node(node).first_entry; e < this->node(node).last_entry; ++e) {
    if (strings_[entries_[static_cast<size_t>(e)].name] == name) return e;
  }
  return -1;
}

Outline Outline::restricted(const std::vector<bool>& keep, int64_t root) const {
  if (keep.size() != entries_.size())
    throw std::invalid_argument("outline: a mask of another length");
  std::vector<int64_t> kept_before(entries_.size() + 1, 0);
  for (size_t i = 0; i < keep.size(); ++i) kept_before[i + 1] = kept_before[i] + (keep[i] ? 1 : 0);
  Outline out;
  std::vector<int64_t> ends;
  for (int64_t i = root; i < node(root).end;) {
    while (!ends.empty() && ends.back() == i) {
      out.close();
      ends.pop_back();
    }
    const OutlineNode& node = nodes_[static_cast<size_t>(i)];
    const bool any = kept_before[static_cast<size_t>(entries_end(i))] >
                     kept_before[static_cast<size_t>(node.first_entry)];
    if (i > root && !any) {
      i = node.end;
      continue;
    }
    out.open(strings_[node.name], strings_[node.label], node.type);
    ends.push_back(node.end);
    for (int64_t e = node.first_entry; e < node.last_entry; ++e) {
      const auto at = static_cast<size_t>(e);
      if (!keep[at]) continue;
      out.add(out.strings_.number(strings_[entries_[at].name]), tensors_[at], entries_[at].buffer);
    }
    ++i;
  }
  for (; !ends.empty(); ends.pop_back()) out.close();
  out.finish();
  return out;
}

}  // namespace pyparam
