// nn.Module.load_state_dict, natively, where it comes to looking names up and copying values.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "table/param_table.h"
#include "walk/ref.h"

namespace pyparam::walk {

// Loads `state` into a plain model of ordinary tensors, as nn.Module.load_state_dict does, and
// gives (missing keys, unexpected keys). None, with nothing written, where anything needs Python
// code, or where PyTorch would report an error or warn: its own method then does it all, in its
// order and its words. With `assign` the caller answers for hooks on what modules register.
Ref load_state_dict(PyObject* module, PyObject* state, bool strict, bool assign);

// (missing keys, unexpected keys, targets, sources, conversions): what loading would copy where, as
// lists of which each pair copies plainly, and of each pair of dtypes that differ the first name
// with the source's dtype and the target's. Nothing is written. None where load_state_dict gives
// None for a reason other than names.
Ref match_state_dict(PyObject* module, PyObject* state);

// What loading a table's tensors would copy where, of which each pair copies plainly.
struct Pairs {
  std::vector<at::Tensor> targets, sources;
  std::vector<std::string> unexpected;  // the table's names that the model lacks
  Ref conversions;                      // as those of match_state_dict
};

// Nothing is written. Nothing where PyTorch has to load, and where the table lacks a name.
std::optional<Pairs> match_table(PyObject* module, const ParamTable& table);

}  // namespace pyparam::walk
