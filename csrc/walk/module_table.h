// From an nn.Module to the columns of a table, in one pass.
#pragma once

#include "table/param_table.h"
#include "walk/ref.h"

namespace pyparam::walk {

struct WalkedModule {
  NameColumn names;
  Ref tensors;  // a list of the objects that the modules hold
  Ref owners;   // a list with a weak reference to each parameter's owning module; null where not
                // asked for
};

// Walks the parameters (and, with `buffers`, after a module's parameters its buffers) of an
// nn.Module.
WalkedModule walk_module(PyObject* module, bool buffers, bool remove_duplicate, bool owners);

}  // namespace pyparam::walk
