// Runs of elements moved part of the way to others: the inner loops of averages.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace pyparam::cpu {

// dst = lerp(dst, src, weight) of n elements that lie in order. The two runs do not overlap.
using Lerp = void (*)(char* dst, const char* src, int64_t n, double weight);

// Of floating-point and complex dtypes; nullptr of the others. Half precision is calculated in
// float32, as PyTorch does.
Lerp lerp_for(c10::ScalarType dtype);

}  // namespace pyparam::cpu
