// Draws a tile of values with the widest vectors the machine has. Every variant gives the same
// bits.
#pragma once

#include <cstdint>

#include "kernels/draw.h"

namespace pyparam::cpu {

// A tile is at most this many Philox blocks: its words and values stay in the first-level cache.
constexpr int64_t kTileBlocks = 256;

// Sums of x - centre and of its square, over 16 (or 8) virtual lanes combined in a fixed order.
struct Sums {
  double first = 0.0, second = 0.0;
};

struct TileFunctions {
  // Writes the values of `blocks` <= kTileBlocks blocks from `block` on. The map is neither kKeep
  // nor kConstant.
  void (*draw32)(const random::Draw&, random::Key, uint64_t block, int64_t blocks, float* out);
  void (*draw64)(const random::Draw&, random::Key, uint64_t block, int64_t blocks, double* out);
  Sums (*sums32)(const float* values, int64_t count, double centre);
  Sums (*sums64)(const double* values, int64_t count, double centre);
  void (*to_bfloat16)(const float* values, int64_t count, uint16_t* out);
  void (*to_float16)(const float* values, int64_t count, uint16_t* out);

  void draw(const random::Draw& d, random::Key key, uint64_t block, int64_t blocks,
            float* out) const {
    draw32(d, key, block, blocks, out);
  }
  void draw(const random::Draw& d, random::Key key, uint64_t block, int64_t blocks,
            double* out) const {
    draw64(d, key, block, blocks, out);
  }
  Sums sums(const float* x, int64_t count, double centre) const { return sums32(x, count, centre); }
  Sums sums(const double* x, int64_t count, double centre) const {
    return sums64(x, count, centre);
  }
};

// Chosen once: the best that the machine has. ATEN_CPU_CAPABILITY bounds the choice, as it does for
// PyTorch's own kernels, and PYPARAM_ISA as for the others (isa.h).
const TileFunctions& tile_functions();

}  // namespace pyparam::cpu
