// Sums of hash.h over many words, at the speed of memory.
#pragma once

#include <cstdint>

#include "kernels/hash.h"

namespace pyparam::cpu {

// The sums of `nbytes` bytes whose first word has the index `first` (counted from 0) in its
// sequence.
hash::Sums hash_bytes(const void* bytes, int64_t nbytes, uint64_t first);

}  // namespace pyparam::cpu
