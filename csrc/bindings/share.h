// Adds what pyparam/_share/ties.py builds on to the extension module.
#pragma once

#include <torch/csrc/utils/pybind.h>

namespace pyparam {

void bind_share(pybind11::module_& m);

}  // namespace pyparam
