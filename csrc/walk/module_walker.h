// nn.Module.named_modules as a native state machine: lazy, iterative, in PyTorch's order.
#pragma once

#include <vector>

#include "walk/id_set.h"
#include "walk/items.h"
#include "walk/path.h"

namespace pyparam::walk {

class ModuleWalker {
 public:
  // `memo` is the caller's container of modules not to give, or null. With `ask_root`, a root whose
  // class has its own named_modules is asked through that; without, the walk is nn.Module's own of
  // the root (what super().named_modules() wants).
  ModuleWalker(Ref root, Ref prefix, bool remove_duplicate, Ref memo, bool ask_root);

  // Moves to the next module; false at the end. Throws PythonError, after which the walk is over.
  bool next();

  PyObject* module() const { return current_.get(); }  // borrowed
  Path& path() { return path_; }                       // the current module's qualified name

  // What the walk was asked for, and whether it has begun.
  PyObject* root() const { return root_.get(); }
  PyObject* prefix() const { return prefix_.get(); }
  bool removes_duplicates() const { return remove_duplicate_; }
  bool asks_root() const { return ask_root_; }
  bool has_memo() const { return static_cast<bool>(python_memo_); }
  bool fresh() const { return state_ == State::kStart; }

  int visit(visitproc visit, void* arg) const;
  void clear();

 private:
  struct Frame {
    Items items;
    Ref module;          // whose children these are; null for a foreign iterator
    size_t path_length;  // of that module's path
    bool foreign;        // pairs of (whole path, module) from a class's own named_modules
  };

  bool enter(Ref module, bool ask);
  bool seen(PyObject* module);
  void use_python_memo();
  static void add_to_memo(PyObject* memo, PyObject* module);
  Ref call_named_modules(PyObject* module, bool as_root);
  void raise_cycle();

  Ref root_, prefix_;
  bool remove_duplicate_, ask_root_;
  enum class State { kStart, kExpand, kContinue, kDone } state_ = State::kStart;
  std::vector<Frame> stack_;
  Path path_;
  Ref current_;
  IdSet memo_;  // modules seen; with remove_duplicate=False the modules on the path, to find cycles
  Ref python_memo_;  // the caller's memo; or the same as a Python set, once other code needs to see
                     // it
};

}  // namespace pyparam::walk
