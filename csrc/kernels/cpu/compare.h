#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>
#include <vector>

#include "kernels/chunks.h"
#include "kernels/difference.h"

namespace pyparam::cpu {

// The op on the CPU: values and counts. With release_a or release_b, the pages of mapped files on
// that side are dropped once they are read. Tensors carry neither the conjugate nor the negative
// bit.
std::tuple<at::Tensor, at::Tensor> compare(at::TensorList a, at::TensorList b, bool release_a,
                                           bool release_b);

// What the op returns, not written yet.
std::tuple<at::Tensor, at::Tensor> empty_differences(int64_t rows, at::Device device);

// Raise unless the lists are as long, and the tensors of a pair of one shape.
void check_lengths(at::TensorList a, at::TensorList b);
void check_shapes(int64_t i, const at::Tensor& a, const at::Tensor& b);

// The steps of it: checks the pairs and cuts them, and compares each piece.
ChunkPlan plan_comparison(at::TensorList a, at::TensorList b);
std::vector<Difference> compare_chunks(at::TensorList a, at::TensorList b, const ChunkPlan& plan,
                                       bool release_a, bool release_b);

}  // namespace pyparam::cpu
