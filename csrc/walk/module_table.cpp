#include "walk/module_table.h"

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

void append_name(NameColumn& names, NameColumn::Node node, PyObject* key) {
  if (!PyUnicode_Check(key)) {
    PyErr_Format(PyExc_TypeError, "walk: a parameter's name must be a str, got %R", key);
    throw PythonError{};
  }
  Py_ssize_t length = 0;
  if (const char* bytes = PyUnicode_AsUTF8AndSize(key, &length)) {
    names.append(node, {bytes, static_cast<size_t>(length)});
    return;
  }
  // It holds lone surrogates, as in Path::append_str.
  PyErr_Clear();
  const Ref utf8 = Ref::checked(PyUnicode_AsEncodedString(key, "utf-8", "surrogatepass"));
  names.append(node,
               {PyBytes_AS_STRING(utf8.get()), static_cast<size_t>(PyBytes_GET_SIZE(utf8.get()))});
}

// The columns while they grow; `most` rows are expected.
struct Columns {
  Columns(size_t most, bool with_owners)
      : tensors(most), owners(with_owners ? most : 0), with_owners(with_owners) {
    names.reserve(most);
  }

  void append(NameColumn::Node node, PyObject* key, PyObject* value, Path& path, const Ref& owner) {
    if (!is_tensor(value)) {
      PyErr_Format(PyExc_TypeError, "walk: %R is no tensor but %.200s", path.joined(key).get(),
                   with_article(Py_TYPE(value)->tp_name).c_str());
      throw PythonError{};
    }
    append_name(names, node, key);
    tensors.add(Ref::borrow(value));
    if (with_owners) owners.add(Ref::borrow(owner.get()));
  }

  WalkedModule finish() {
    return {std::move(names), tensors.finish(), with_owners ? owners.finish() : Ref()};
  }

  NameColumn names;
  ListFiller tensors, owners;
  bool with_owners;
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
    out.append(node, walker.key(), walker.value(), walker.path(), owner);
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
  const auto walk_kind = [&](const PlainWalk::Members& members) {
    NodeFinder finder(columns.names);
    BorrowedIdSet seen;
    Path path;
    return walk->for_each(path, remove_duplicate, [&](uint32_t index, Path& at) {
      if (members.begin(index) == members.end(index)) return;
      const NameColumn::Node node = finder.find(at);
      Ref owner;
      if (owners) owner = Ref::checked(PyWeakref_NewRef(walk->modules()[index], nullptr));
      for (uint32_t i = members.begin(index); i < members.end(index); ++i) {
        members.prefetch_ahead(i);
        const auto [key, value] = members.all[i];
        if (remove_duplicate && walk->may_repeat(value) && !seen.insert(value)) continue;
        columns.append(node, key, value, at, owner);
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
