#pragma once

#include <torch/csrc/utils/pybind.h>

namespace pyparam {

void bind_fingerprint(pybind11::module_& m);

}  // namespace pyparam
