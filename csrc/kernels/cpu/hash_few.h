// Digests of tensors of few bytes, by the ten thousand: what is done once for each is most of the
// work, so it is done in the lanes of vectors, a tensor a lane.
#pragma once

#include <cstdint>

#include "kernels/hash.h"

namespace pyparam::cpu {

// Tensors that are hashed together. Bytes are in row-major order; `description` is what
// hash::describe_tensor gives.
struct FewBytes {
  static constexpr int kTensors = 8;

  const char* bytes[kTensors];
  int64_t sizes[kTensors];  // in bytes, positive
  hash::Sums descriptions[kTensors];
};

// The digests of the first `count` of them, to digests[0] to digests[count - 1].
void digest_few(const FewBytes& few, int count, hash::Digest* digests);

// The sum over a table's entries of hash::entry_digest, from the digests and what the names add to
// their entries (hash::NameSums). Needs as many of each.
hash::Digest sum_entries(const hash::Digest* digests, const hash::Sums* names, int64_t count);

}  // namespace pyparam::cpu
