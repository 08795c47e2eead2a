// The inner loops of comparing over one block of values, for the instructions this machine has.
//
// As in lanes.h, results are the same bits for all: value i goes to lane i % 8, and the lanes add
// up as a tree.
#pragma once

#include <cstdint>

#include "kernels/cpu/lanes.h"

namespace pyparam::cpu {

struct BlockDifference {
  double max_abs;
  double sum_abs;
  double squares;
  double squares_a;
  double squares_b;
  double product;
};

// Blocks have 1 to kBlock values. With infinities or NaNs among them, some sums come out as such.
struct DifferenceKernels {
  BlockDifference (*floats)(const float* a, const float* b, int64_t n);
  BlockDifference (*doubles)(const double* a, const double* b, int64_t n);
  // Where |a - b| is known already.
  BlockDifference (*given)(const double* a, const double* b, const double* distance, int64_t n);
  // squares_a of a block that is compared with itself, in the same bits.
  double (*squares_float)(const float* a, int64_t n);
  double (*squares_double)(const double* a, int64_t n);

  // How many elements of 1, 2, 4, 8 or 16 bytes are not the same bits.
  int64_t (*count_differing)(const void* a, const void* b, int64_t n, int64_t width);
  // How many values are not equal, where two NaNs are and zeros of both signs are.
  int64_t (*count_unequal_floats)(const float* a, const float* b, int64_t n);
  int64_t (*count_unequal_doubles)(const double* a, const double* b, int64_t n);

  void (*to_doubles)(const float* from, int64_t n, double* to);
};

const DifferenceKernels& difference_kernels();

}  // namespace pyparam::cpu
