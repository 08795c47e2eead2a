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

// The same of any loop into elements that lie in order, each of dst_size bytes, past the caches as
// stream_copy does.
void stream_run(Run run, char* dst, int64_t dst_size, const char* src, int64_t src_step, int64_t n);

// The loop that does so without waiting for a stage in between: a tenth to a third faster. Both
// runs lie in order. nullptr but for two different dtypes among float32, float64, float16 and
// bfloat16.
Run stream_for(c10::ScalarType to, c10::ScalarType from);

// The loop that copies elements of this many bytes: 1, 2, 4, 8 or 16, else nullptr.
Run word_copy(int64_t size);

}  // namespace pyparam::cpu
