#include "walk/module_table.h"

#include <torch/csrc/autograd/python_variable.h>

#include "walk/member_walker.h"

namespace pyparam::walk {

namespace {

// Finds the name column's node of the module a walk stands at. Modules without members need none: a node's key
// may be several names long.
class NodeFinder {
 public:
  explicit NodeFinder(NameColumn& names) : names_(names) {}

  NameColumn::Node find(Path& path) {
    while (!open_.empty() && open_.back().path_length > path.unchanged()) open_.pop_back();
    path.mark();
    const std::string_view whole = path.view();
    const size_t above = open_.empty() ? 0 : open_.back().path_length;
    const NameColumn::Node parent = open_.empty() ? NameColumn::kRoot : open_.back().node;
    if (whole.size() == above) return parent;
    const NameColumn::Node node = names_.module(parent, whole.substr(above == 0 ? 0 : above + 1));
    open_.push_back({whole.size(), node});
    return node;
  }

 private:
  struct Open {
    size_t path_length;
    NameColumn::Node node;
  };
  NameColumn& names_;
  std::vector<Open> open_;  // modules above the walk's place, outermost first
};

std::string_view utf8(PyObject* key) {
  Py_ssize_t length = 0;
  const char* bytes = PyUnicode_Check(key) ? PyUnicode_AsUTF8AndSize(key, &length) : nullptr;
  if (bytes != nullptr) return {bytes, static_cast<size_t>(length)};
  if (!PyUnicode_Check(key)) PyErr_Format(PyExc_TypeError, "walk: a parameter's name must be a str, got %R", key);
  throw PythonError{};
}

void walk_members(PyObject* module, PyObject* members, bool remove_duplicate, WalkedModule& out) {
  MemberWalker walker(Ref::borrow(module), Ref::checked(PyUnicode_FromString("")), {members, true, remove_duplicate});
  NodeFinder finder(out.table.names);
  NameColumn::Node node = NameColumn::kRoot;
  Ref owner;
  size_t at = 0;
  while (walker.next()) {
    if (walker.module_index() != at) {
      at = walker.module_index();
      node = finder.find(walker.path());
      if (out.owners) owner = Ref::checked(PyWeakref_NewRef(walker.module(), nullptr));
    }
    if (!THPVariable_Check(walker.value())) {
      PyErr_Format(PyExc_TypeError, "walk: %R is no tensor but a %.200s", walker.path().joined(walker.key()).get(),
                   Py_TYPE(walker.value())->tp_name);
      throw PythonError{};
    }
    out.table.names.append(node, utf8(walker.key()));
    out.table.tensors.push_back(THPVariable_Unpack(walker.value()));
    if (out.owners && PyList_Append(out.owners.get(), owner.get()) < 0) throw PythonError{};
  }
}

}  // namespace

WalkedModule walk_module(PyObject* module, bool buffers, bool remove_duplicate, bool owners) {
  WalkedModule out;
  if (owners) out.owners = Ref::checked(PyList_New(0));
  walk_members(module, names().parameters, remove_duplicate, out);
  if (buffers) walk_members(module, names().buffers, remove_duplicate, out);
  out.table.names.shrink_to_fit();
  out.table.tensors.shrink_to_fit();
  return out;
}

}  // namespace pyparam::walk
