// Moves elements between many tensors and one vector on the CPU, in either direction: what flatten
// and scatter_ have in common. One pass over the tensors reads what is needed of each, one pass
// moves the bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "kernels/alike.h"
#include "kernels/kept.h"
#include "kernels/spans.h"

namespace pyparam::cpu {

// What the second pass needs of a tensor.
struct Piece {
  char* data;  // nullptr where nothing is read: no elements, or an absent gradient (zeros)
  int64_t numel;
  int64_t offset;  // of its first element in the vector, in elements
  at::ScalarType dtype;
  bool dense;  // contiguous: its bytes are its elements in order
  bool lazy;   // the conjugate or negative bit is set
};

struct Pieces {
  std::vector<Piece, Kept<Piece>> list;
  std::vector<size_t> empties;  // the indices without elements, which a Python face looks at again
  int64_t numel = 0;
  bool same_dtype = true;
  bool whole = true;  // each piece has elements, and they lie in its memory as they are, in order
};

// A strided CPU tensor with memory of its own: no wrapper, no other device, no sparse or quantized
// layout.
bool is_ordinary(const at::Tensor& tensor);

// Reads the tensors, which must all be ordinary strided CPU tensors: nullopt if any is anything
// else (another device, a wrapper, sparse), and then nothing has been decided about it. `write` is
// for tensors to be written. Raises where a tensor's storage is smaller than the tensor. Needs no
// GIL.
std::optional<Pieces> read_pieces(const char* verb, const Subject& subject, bool write);

// The bytes that a piece's tensor lies in.
Span span_of(const Piece& piece, const at::Tensor& tensor);

// Refuses, with verb and words, two dtypes between which nothing converts.
void require_convertible(const char* verb, const Subject& subject, const Pieces& pieces,
                         at::ScalarType to);

// Fills the vector from the tensors. `vector` is contiguous, of pieces.numel elements.
void gather(const Subject& subject, const Pieces& pieces, const at::Tensor& vector);

// Fills the tensors from the vector, in parallel unless two tensors overlap: then in order, so the
// last wins.
void scatter(const Subject& subject, const Pieces& pieces, const at::Tensor& vector);

}  // namespace pyparam::cpu
