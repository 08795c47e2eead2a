// Tensors of a state dict that become a module's own entries: load_state_dict(assign=True).
//
// In three steps, so that nothing has changed where a later entry turns out to need PyTorch: `add`
// looks at each entry, `make` makes the parameters, `assign` puts all of it into the modules.
#pragma once

#include <vector>

#include "walk/module_type.h"

namespace pyparam::walk {

// What a walk must not find of a class's own: an entry is put where nn.Module's `__setattr__` puts
// it.
constexpr unsigned kAssigningMethods = kSetAttr | kRegisterParameter | kRegisterBuffer;

class Assigner {
 public:
  // Notes that entry `key` of a module, which is `target`, becomes `source`. False where `setattr`
  // would do more than replace it, or where PyTorch would report an error. `dict` is the instance's
  // dict. All stay borrowed until `assign` is done.
  bool add(PyObject* dict, const ModuleType& type, bool parameter, PyObject* key, PyObject* target,
           PyObject* source);

  // Notes that a dict, of a module's metadata, tells that its state was assigned.
  void mark(PyObject* metadata) { marked_.push_back(metadata); }

  // Makes what is not there yet. False where PyTorch would report an error.
  bool make();

  // Runs no Python code: what was replaced lives as long as this object.
  void assign();

 private:
  struct Entry {
    PyObject *members, *key;  // borrowed
    PyObject* source;         // borrowed
    Ref made;                 // a parameter of the source's memory; null where it is the source
    bool parameter, requires_grad;
  };

  std::vector<Entry> entries_;
  std::vector<PyObject*> marked_;
  std::vector<Ref> replaced_;
};

}  // namespace pyparam::walk
