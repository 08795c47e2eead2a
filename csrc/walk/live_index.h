// A model's members by name, with a way to tell whether a walk would find them again.
//
// From CPython 3.12 on, dicts are watched: a change of any that the walk has read is noticed as it
// happens, and asking costs nothing. Before, every dict has a version tag, globally unique, that
// changes with it: asking compares the tags, from the root down, so that what is looked at is still
// held by what was found unchanged before it. Where no tag at all was given in between, the modules
// alone are looked at.
#pragma once

#include <cstdint>
#include <vector>

#include "walk/module_type.h"

namespace pyparam::walk {

class LiveIndex {
 public:
  explicit LiveIndex(bool buffers);

  // A dict of names and parameters (and, after them, buffers), each object once, as
  // `dict(model.named_parameters())` has them. Null where the model is not plain: then nothing can
  // be said of changes, and it has to be walked each time.
  Ref read(PyObject* root);

  // Whether `read` would give the same again. Runs no Python code.
  bool is_current(PyObject* root);

  // The member of this qualified name, found on the way its name says, whatever has changed; null
  // where there is none, or where a module on that way has a walk of its own.
  Ref find(PyObject* root, PyObject* name) const;

 private:
  // What the entries of module i depend on; none of it held. Columns, because a look goes through
  // all of them.
  struct Watched {
    std::vector<PyObject*> modules, dicts;
    std::vector<uint32_t> types;     // which of classes_
    std::vector<PyObject*> members;  // three of each: `_modules`, `_parameters`, `_buffers` or null

    void clear() {
      modules.clear();
      dicts.clear();
      types.clear();
      members.clear();
    }
  };
  struct Class {
    Ref type;
    unsigned version_tag;
  };

  bool watch(PyObject* module, uint32_t type);
  bool same_attributes(size_t module) const;

  bool buffers_;
  PyObject* root_ = nullptr;  // not held
  Watched watched_;
  std::vector<Class> classes_;
  [[maybe_unused]] uint64_t events_ = 0;  // where dicts can be watched
  [[maybe_unused]] uint64_t seen_ =
      0;  // else the last tag when all was current: later ones are greater
};

}  // namespace pyparam::walk
