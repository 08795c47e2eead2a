// What a kernel knows of a list of tensors: rows of plain data, in one run of bytes that one copy
// brings to the device. No torch header.
#pragma once

#include <cstdint>

#include "kernels/macros.h"

namespace pyparam {

// One dimension of a tensor that is not dense in row-major order: outermost first, dimensions of
// one element left out, neighbours that step evenly merged.
struct ExtentRow {
  int64_t size;
  int64_t stride;  // in elements
};

struct TensorRow {
  uint64_t data;        // address of the first element; 0 without elements
  int64_t numel;        // elements
  int64_t position;     // elements of all tensors before it
  int64_t first_chunk;  // chunks of all tensors before it
  int32_t first_extent;
  int16_t extents;  // 0: dense, its bytes are its elements in order
  int8_t dtype;     // number of the c10::ScalarType
  uint8_t item;     // bytes of an element, of whatever dtype
};
static_assert(sizeof(TensorRow) == 40, "rows are packed");

// Elements [begin, begin + length) of a tensor. length > 0.
struct ChunkRow {
  int64_t begin;
  int32_t tensor;
  int32_t length;
};
static_assert(sizeof(ChunkRow) == 16, "rows are packed");

// The rows, where they lie. tensors[tensor_count] is a row too: without elements, with the sums of
// all. So tensor t has the chunks tensors[t].first_chunk .. tensors[t + 1].first_chunk.
struct TableView {
  const TensorRow* tensors;
  const ExtentRow* extents;
  const ChunkRow* chunks;
  int64_t tensor_count;
  int64_t chunk_count;
};

// Where element `index` of a tensor lies, in elements from its first, in row-major logical order.
//
// Out of line on a device: its loop of divisions, inlined wherever a kernel reads a value, made up
// two thirds of the large kernels, and only tensors that are not dense come here.
// One copy a translation unit, and not all of them call it.
#if defined(__CUDACC__)
[[maybe_unused]] static __host__ __device__ __noinline__
#else
inline
#endif
    int64_t place_of(const ExtentRow* extents, int count, int64_t index) {
  int64_t place = 0;
  for (int d = count - 1; d > 0; --d) {
    const int64_t size = extents[d].size;
    int64_t quotient;
    // A 64-bit division costs a device several times a 32-bit one.
    if (((index | size) >> 32) == 0) {
      quotient = static_cast<int64_t>(static_cast<uint32_t>(index) / static_cast<uint32_t>(size));
    } else {
      quotient = index / size;
    }
    place += (index - quotient * size) * extents[d].stride;
    index = quotient;
  }
  return count > 0 ? place + index * extents[0].stride : index;
}

}  // namespace pyparam
