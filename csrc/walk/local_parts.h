// The local tensors of a table's DTensors, and which of them are cut alike.
#pragma once

#include <Python.h>

#include <cstdint>
#include <vector>

#include "table/param_table.h"
#include "walk/ref.h"

namespace pyparam::walk {

// Rows of one kind are alike in dtype, device, layout and shape; DTensors, in mesh, placements and
// the same of their local tensors too.
struct LocalParts {
  Ref locals;  // a list: of each row what lies here
  std::vector<int64_t> kind_of;
  std::vector<int64_t> first;  // the first row of each kind
};

// `dtensor` is the class DTensor, or None: then no row is one. `dims` (dict) tells of classes of
// placements whether their attribute "dim" tells two of them apart (True), or nothing does (False);
// others are asked for their hashes. `local_of` is called with a DTensor whose local tensor is not
// a plain one, and gives it. Throws PythonError.
LocalParts local_parts(const ParamTable& table, PyObject* dtensor, PyObject* dims,
                       PyObject* local_of);

}  // namespace pyparam::walk
