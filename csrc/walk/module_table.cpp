#include "walk/module_table.h"

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "article.h"
#include "walk/member_walker.h"
#include "walk/plain_walk.h"
#include "walk/tensor.h"

namespace pyparam::walk {

namespace {

// Finds the name column's node of the module a walk stands at. Modules without members need none: a
// node's key may be several names long.
class NodeFinder {
 public:
  explicit NodeFinder(NameColumn& names) : names_(names) {}

  NameColumn::Node find(Path& path) {
    while (!open_.empty() && open_.back().path_length > path.unchanged()) open_.pop_back();
    path.mark();
    const std::string_view whole = path.view();
    // On the way to what lies far below, others are opened, so that in a deep model without members
    // on the way no key is as long as its path.
    constexpr size_t kFar = 48;
    for (;;) {
      const size_t dot = whole.find('.', (open_.empty() ? 0 : open_.back().path_length) + kFar);
      if (dot == std::string_view::npos) break;
      open(whole.substr(0, dot));
    }
    return open(whole);
  }

 private:
  NameColumn::Node open(std::string_view whole) {
    const size_t above = open_.empty() ? 0 : open_.back().path_length;
    const NameColumn::Node parent = open_.empty() ? NameColumn::kRoot : open_.back().node;
    if (whole.size() == above) return parent;
    const NameColumn::Node node = names_.module(parent, whole.substr(above == 0 ? 0 : above + 1));
    open_.push_back({whole.size(), node});
    return node;
  }

  struct Open {
    size_t path_length;
    NameColumn::Node node;
  };
  NameColumn& names_;
  std::vector<Open> open_;  // modules above the walk's place, outermost first
};

// Calls fn with a str's UTF-8.
template <typename Fn>
auto with_utf8(PyObject* text, const Fn& fn) {
  if (PyUnicode_IS_COMPACT_ASCII(text)) {
    return fn(std::string_view(reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(text)),
                               static_cast<size_t>(PyUnicode_GET_LENGTH(text))));
  }
  // It may hold lone surrogates, as in Path::append_str.
  const Ref utf8 = Ref::checked(PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass"));
  return fn(std::string_view(PyBytes_AS_STRING(utf8.get()),
                             static_cast<size_t>(PyBytes_GET_SIZE(utf8.get()))));
}

// A column's texts of keys. Most modules of a model have the same few ("weight", "bias"), as the
// same objects, so each is stored once. For as long as nothing can die, as in a bulk walk: a key is
// known by its address.
class KeyTexts {
 public:
  explicit KeyTexts(NameColumn& names) : names_(names), walk_(++walks) {}

  // Of an exact str.
  NameColumn::Text operator[](PyObject* key) {
    Slot& slot = slots[(reinterpret_cast<uintptr_t>(key) >> 4) % slots.size()];
    if (slot.walk != walk_ || slot.key != key) {
      const auto text = with_utf8(key, [&](std::string_view utf8) { return names_.store(utf8); });
      slot = {key, walk_, text};
    }
    return slot.text;
  }

 private:
  struct Slot {
    PyObject* key = nullptr;
    uint64_t walk = 0;  // that it was filled in; of no other is it true
    NameColumn::Text text;
  };
  // Under the GIL, and not cleared for each walk, which may be one of three modules.
  static std::array<Slot, 256> slots;
  static uint64_t walks;

  NameColumn& names_;
  const uint64_t walk_;
};
std::array<KeyTexts::Slot, 256> KeyTexts::slots;
uint64_t KeyTexts::walks = 0;

// The keys from the root to where a bulk walk stands, and the column's node of that place. Nodes
// are made for modules that have members or a module below them that has some, and for no others.
class NodeTrail {
 public:
  NodeTrail(NameColumn& names, KeyTexts& texts) : names_(names), texts_(texts) {}

  size_t size() const { return depth_; }
  void truncate(size_t depth) {
    depth_ = depth;
    if (with_node_ > depth) with_node_ = depth;
  }
  void push(PyObject* key) {
    if (depth_ == places_.size()) places_.resize(2 * depth_ + 16);
    places_[depth_++].key = key;
  }

  NameColumn::Node node() {
    for (; with_node_ < depth_; ++with_node_) {
      Place& place = places_[with_node_];
      place.node = names_.module(with_node_ == 0 ? NameColumn::kRoot : places_[with_node_ - 1].node,
                                 texts_[place.key]);
    }
    return depth_ == 0 ? NameColumn::kRoot : places_[depth_ - 1].node;
  }

 private:
  struct Place {
    PyObject* key;
    NameColumn::Node node;
  };
  NameColumn& names_;
  KeyTexts& texts_;
  std::vector<Place> places_;
  size_t depth_ = 0;
  size_t with_node_ = 0;  // places from the root on whose nodes are made
};

// The columns while they grow; `most` rows are expected.
struct Columns {
  Columns(size_t most, bool with_owners)
      : tensors(most), owners(with_owners ? most : 0), with_owners(with_owners) {
    names.reserve(most);
  }

  void append(NameColumn::Node node, NameColumn::Text key, PyObject* value, const Ref& owner) {
    names.append(node, key);
    if (!is_tensor(value)) raise_no_tensor(value);
    tensors.add(Ref::borrow(value));
    if (with_owners) owners.add(Ref::borrow(owner.get()));
  }

  WalkedModule finish() {
    return {std::move(names), tensors.finish(), with_owners ? owners.finish() : Ref()};
  }

  NameColumn names;
  ListFiller tensors, owners;
  bool with_owners;

 private:
  // Of the value whose name was appended last.
  [[noreturn]] void raise_no_tensor(PyObject* value) const {
    const std::string name = names[names.size() - 1];
    const Ref text = Ref::checked(
        PyUnicode_DecodeUTF8(name.data(), static_cast<Py_ssize_t>(name.size()), "surrogatepass"));
    PyErr_Format(PyExc_TypeError, "walk: %R is no tensor but %.200s", text.get(),
                 with_article(Py_TYPE(value)->tp_name).c_str());
    throw PythonError{};
  }
};

void walk_members(PyObject* module, PyObject* members, bool remove_duplicate, Columns& out) {
  MemberWalker walker(Ref::borrow(module), Ref::checked(PyUnicode_FromString("")),
                      {members, true, remove_duplicate});
  NodeFinder finder(out.names);
  NameColumn::Node node = NameColumn::kRoot;
  Ref owner;
  size_t at = 0;
  while (walker.next()) {
    if (walker.module_index() != at) {
      at = walker.module_index();
      node = finder.find(walker.path());
      if (out.with_owners) owner = Ref::checked(PyWeakref_NewRef(walker.module(), nullptr));
    }
    PyObject* key = walker.key();
    if (!PyUnicode_Check(key)) {
      PyErr_Format(PyExc_TypeError, "walk: a parameter's name must be a str, got %R", key);
      throw PythonError{};
    }
    const auto text = with_utf8(key, [&](std::string_view utf8) { return out.names.store(utf8); });
    out.append(node, text, walker.value(), owner);
  }
}

// The same, for a model that is plain.
bool walk_plain(PyObject* module, bool buffers, bool remove_duplicate, bool owners,
                WalkedModule& out) {
  PlainWalk::Wanted wanted;
  wanted.parameters = true;
  wanted.buffers = buffers;
  PlainWalk::Lease walk;
  if (!walk->read(module, wanted)) return false;
  Columns columns(walk->parameters().all.size() + walk->buffers().all.size(), owners);
  KeyTexts texts(columns.names);
  const auto walk_kind = [&](const PlainWalk::Members& members) {
    BorrowedIdSet seen;
    NodeTrail trail(columns.names, texts);
    return walk->for_each(trail, remove_duplicate, [&](uint32_t index, NodeTrail& at) {
      if (members.begin(index) == members.end(index)) return;
      const NameColumn::Node node = at.node();
      Ref owner;
      if (owners) owner = Ref::checked(PyWeakref_NewRef(walk->modules()[index], nullptr));
      for (uint32_t i = members.begin(index); i < members.end(index); ++i) {
        members.prefetch_ahead(i);
        const auto [key, value] = members.all[i];
        if (remove_duplicate && walk->may_repeat(value) && !seen.insert(value)) continue;
        columns.append(node, texts[key], value, owner);
      }
    });
  };
  if (!walk_kind(walk->parameters()) || (buffers && !walk_kind(walk->buffers()))) return false;
  out = columns.finish();
  return true;
}

}  // namespace

WalkedModule walk_module(PyObject* module, bool buffers, bool remove_duplicate, bool owners) {
  WalkedModule out;
  {
    const GcPause pause;
    if (walk_plain(module, buffers, remove_duplicate, owners, out)) return out;
  }
  Columns columns(0, owners);
  walk_members(module, names().parameters, remove_duplicate, columns);
  if (buffers) walk_members(module, names().buffers, remove_duplicate, columns);
  columns.names.shrink_to_fit();
  return columns.finish();
}

}  // namespace pyparam::walk
