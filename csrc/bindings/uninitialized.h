// An UninitializedParameter is an empty tensor to C++: only its Python class tells.
#pragma once

#include <vector>

#include "kernels/alike.h"

namespace pyparam {

// Refuses, as c10::TypeError, a lazy module's parameter without a shape. Looks only at the given
// indices, those of the tensors without elements. Takes the GIL.
void refuse_uninitialized(const char* verb, const Subject& subject,
                          const std::vector<size_t>& empties);

}  // namespace pyparam
