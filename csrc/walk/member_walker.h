// nn.Module._named_members as a native state machine: the parameters or buffers of one module after
// another.
#pragma once

#include <optional>

#include "walk/module_walker.h"

namespace pyparam::walk {

struct MemberOptions {
  PyObject* members;  // names().parameters or names().buffers
  bool recurse = true;
  bool remove_duplicate = true;
};

class MemberWalker {
 public:
  MemberWalker(Ref root, Ref prefix, const MemberOptions& options);

  // Moves to the next member; false at the end. Throws PythonError, after which the walk is over.
  bool next();

  PyObject* value() const { return value_.get(); }  // held until the next call
  PyObject* key() const { return key_.get(); }      // likewise
  PyObject* module() const { return module_.get(); }
  Path& path() { return modules_.path(); }  // of the owning module
  // Counts the modules visited so far; it changes with the module.
  size_t module_index() const { return module_index_; }

  // What the walk was asked for, and whether it has begun.
  const MemberOptions& options() const { return options_; }
  PyObject* root() const { return root_.get(); }
  PyObject* prefix() const { return prefix_.get(); }
  bool fresh() const { return !done_ && module_index_ == 0 && modules_.fresh(); }

  int visit(visitproc visit, void* arg) const;
  void clear();

 private:
  bool next_module();

  ModuleWalker modules_;
  MemberOptions options_;
  Ref root_, prefix_;
  bool done_ = false, started_ = false;
  Ref module_;
  std::optional<Items> items_;
  size_t module_index_ = 0;
  IdSet memo_;
  Ref key_, value_;
};

}  // namespace pyparam::walk
