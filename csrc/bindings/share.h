// Adds what pyparam/_share/ties.py builds on to the extension module.
#pragma once

#include <torch/csrc/utils/pybind.h>

#include <vector>

namespace pyparam {

// Whether any two of the tensors have a common byte, or may have one. Takes the GIL held.
bool share_memory(const std::vector<at::Tensor>& tensors);

void bind_share(pybind11::module_& m);

}  // namespace pyparam
