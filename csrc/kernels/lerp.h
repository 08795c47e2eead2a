// Linear interpolation, as torch.lerp has it (ATen/native/Lerp.h). No torch header.
#pragma once

#include "kernels/macros.h"

namespace pyparam {

// Between `start`, at weight 0, and `end`, at weight 1, from the nearer one: exact at both.
template <typename T>
PYPARAM_FORMULA T lerp(T start, T end, T weight) {
  const bool nearer_start = weight < T(0.5) && weight > T(-0.5);
  return nearer_start ? start + weight * (end - start) : end - (end - start) * (T(1) - weight);
}

}  // namespace pyparam
