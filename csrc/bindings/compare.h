#pragma once

#include <torch/csrc/utils/pybind.h>

namespace pyparam {

void bind_compare(pybind11::module_& m);

}  // namespace pyparam
