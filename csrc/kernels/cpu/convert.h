// Copies of runs of elements, converting between any two dtypes: the inner loops of flatten and
// scatter_.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace pyparam::cpu {

// Copies n elements. Steps are in bytes, from one element to the next; the two runs do not overlap.
using Run = void (*)(char* dst, int64_t dst_step, const char* src, int64_t src_step, int64_t n);

// The loop that converts as Tensor.to does (c10::convert). nullptr where a dtype has no conversion
// (bits, qint, sub-byte) and the two differ. With equal dtypes it copies bytes.
Run run_for(c10::ScalarType to, c10::ScalarType from);

// The loop that copies elements of this many bytes: 1, 2, 4, 8 or 16, else nullptr.
Run word_copy(int64_t size);

}  // namespace pyparam::cpu
