// From a torch::jit::Module to a ParamTable, through libtorch's slots.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include "table/param_table.h"

namespace pyparam::walk {

// Walks the parameters (and, with `buffers`, after a module's parameters its buffers) of a
// TorchScript module, with the names, order and removal of duplicates that the Python module's
// named_parameters and named_buffers give: by identity of the tensor, where libtorch's own
// iterators list a tensor once for every path to it.
ParamTable walk_script(const torch::jit::Module& module, bool buffers, bool remove_duplicate);

}  // namespace pyparam::walk
