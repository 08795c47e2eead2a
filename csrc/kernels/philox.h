// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random
// numbers: as easy as 1, 2, 3" (SC 2011). Integers only: the same words on every machine. Includes
// no torch header.
#pragma once

#include <cstdint>

#include "kernels/macros.h"

namespace pyparam::philox {

struct Words {
  uint32_t w0, w1, w2, w3;
};

// The product of two 32-bit numbers, held in the low halves of 64-bit words whose high halves are
// noise.
struct ScalarProduct {
  PYPARAM_HD void operator()(const uint64_t& a, uint32_t b, uint64_t& product) const {
    product = static_cast<uint64_t>(static_cast<uint32_t>(a)) * b;
  }
};

// Ten rounds under the 64-bit key (key0, key1). A word lives in the low half of a 64-bit lane and
// the high half is never read, so no lane is masked between rounds. `Lane` is uint64_t or a vector
// of them.
template <typename Lane, typename Product>
PYPARAM_HD inline __attribute__((always_inline)) void rounds(Lane& w0, Lane& w1, Lane& w2, Lane& w3,
                                                             uint32_t key0, uint32_t key1,
                                                             const Product& product) {
  PYPARAM_UNROLL(10)
  for (int round = 0; round < 10; ++round) {
    Lane product0, product1;
    product(w0, 0xD2511F53u, product0);
    product(w2, 0xCD9E8D57u, product1);
    w0 = (product1 >> 32) ^ w1 ^ key0;
    w1 = product1;
    w2 = (product0 >> 32) ^ w3 ^ key1;
    w3 = product0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

PYPARAM_HD inline Words philox4x32_10(Words counter, uint32_t key0, uint32_t key1) {
  uint64_t w0 = counter.w0, w1 = counter.w1, w2 = counter.w2, w3 = counter.w3;
  rounds(w0, w1, w2, w3, key0, key1, ScalarProduct{});
  return {static_cast<uint32_t>(w0), static_cast<uint32_t>(w1), static_cast<uint32_t>(w2),
          static_cast<uint32_t>(w3)};
}

// Words 4 * block .. 4 * block + 3 of a stream under a seed: the counter is (block, stream), the
// key the seed.
PYPARAM_HD inline Words block_words(uint64_t seed, uint64_t stream, uint64_t block) {
  const Words counter = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                         static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)};
  return philox4x32_10(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

}  // namespace pyparam::philox
