// Digests of tensors of few bytes, by the ten thousand: what is done once for each is most of the
// work, so it is done in the lanes of vectors, a tensor a lane.
#pragma once

#include <cstdint>

#include "kernels/hash.h"

namespace pyparam::cpu {

// Tensors that are hashed together: more than lanes, so that multiplications of some fill the wait
// for those of others. Bytes are in row-major order; `description` is what hash::describe_tensor
// gives.
struct FewBytes {
  static constexpr int kTensors = 16;
  static constexpr int kLanes = 8;

  const char* bytes[kTensors];
  int64_t sizes[kTensors];  // in bytes, positive
  hash::Sums descriptions[kTensors];
  // The two sums of each one's bytes, in lanes that are to be added up.
  alignas(64) uint64_t plain[kTensors][kLanes];
  alignas(64) uint64_t placed[kTensors][kLanes];
};

struct HashKernels {
  // Sets the sums of tensors [begin, end): the only step that waits for memory, so that other work
  // can be done between one tensor and the next.
  void (*sum_bytes)(FewBytes& few, int begin, int end);
  // The digests of the first `count` tensors, of which the sums are set, to digests[0] to
  // digests[count - 1].
  void (*digest_few)(const FewBytes& few, int count, hash::Digest* digests);
  hash::Digest (*sum_entries)(const hash::Digest* digests, const hash::Sums* names, int64_t count);
};
const HashKernels& hash_kernels();

// The sum over a table's entries of hash::entry_digest, from the digests and what the names add to
// their entries (hash::NameSums). Needs as many of each.
hash::Digest sum_entries(const hash::Digest* digests, const hash::Sums* names, int64_t count);

}  // namespace pyparam::cpu
