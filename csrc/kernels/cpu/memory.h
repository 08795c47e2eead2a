// Memory of many megabytes: fresh outputs in huge pages, and stores that leave the caches alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace pyparam::cpu {

// An uninitialised contiguous vector from torch's own CPU allocator. A large one asks the system
// for huge pages before anything touches it, so that the threads that fill it take one fault every
// 2 MB, not every 4 KB.
at::Tensor fresh_vector(int64_t numel, at::ScalarType dtype);

// Outputs from this size on are written past the caches: they would not stay in them anyway, and a
// plain store first reads the line it is about to overwrite.
constexpr int64_t streaming_bytes = int64_t{32} << 20;

// memcpy past the caches. The writes are visible to other threads once this returns and the threads
// meet.
void stream_copy(void* dst, const void* src, size_t bytes);

}  // namespace pyparam::cpu
