// Fills tensors with counter-based random numbers: the columns of a fill, checked and prepared. See
// fill.cpp of each device for the work.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/SmallVector.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/draw.h"

namespace pyparam {

// One entry a tensor in `kinds`, `streams` and `offsets`; four a tensor in `parameters`; one a
// dimension of each tensor in `strides`. `offsets` and `strides` may be empty: each tensor is then
// a whole of its own.
struct FillColumns {
  at::IntArrayRef kinds;
  at::ArrayRef<double> parameters;
  int64_t seed;
  at::IntArrayRef streams;
  at::IntArrayRef offsets;
  at::IntArrayRef strides;
};

// One dimension of a tensor, walked in logical order.
struct Extent {
  int64_t size, stride;
};

// Where the elements of a tensor lie, in memory or in the whole the tensor is a part of: row-major
// over `dims`, adjacent dimensions merged where they step alike.
struct Layout {
  int64_t offset = 0;
  c10::SmallVector<Extent, 2> dims;  // outermost first; empty for one element

  // Calls run(position, at, count, step) for pieces of [begin, begin + length) that lie evenly.
  template <typename Run>
  void for_runs(int64_t begin, int64_t length, const Run& run) const {
    if (dims.size() <= 1) {
      const int64_t step = dims.empty() ? 1 : dims[0].stride;
      run(int64_t{0}, offset + begin * step, length, step);
      return;
    }
    const Extent inner = dims.back();
    for (int64_t done = 0; done < length;) {
      int64_t index = begin + done;
      const int64_t column = index % inner.size;
      int64_t at = offset + column * inner.stride;
      index /= inner.size;
      for (size_t d = dims.size() - 1; d-- > 0; index /= dims[d].size)
        at += index % dims[d].size * dims[d].stride;
      const int64_t count = std::min(inner.size - column, length - done);
      run(done, at, count, inner.stride);
      done += count;
    }
  }
};

// How one tensor is filled.
struct FillRow {
  size_t draw = 0;  // among Fill::draws
  random::Key key;
  Layout memory;  // in elements from the tensor's first
  Layout whole;   // the index of each element in the stream
};

// A fill, checked. Tensors that are filled alike share a draw.
struct Fill {
  std::vector<random::Draw> draws;
  std::vector<FillRow> rows;

  const random::Draw& draw(size_t tensor) const { return draws[rows[tensor].draw]; }
};

// Raises ValueError where there is not one kind a tensor. Whatever reads kinds[i] first calls this.
void check_kinds(at::TensorList tensors, at::IntArrayRef kinds);

// Checks everything there is to check, for every tensor, and prepares the rows.
Fill prepare_fill(at::TensorList tensors, const FillColumns& columns);

}  // namespace pyparam
