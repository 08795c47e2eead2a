// Packing: parameters that live one after the other in one buffer a device and dtype, each with a
// storage of its own that covers its bytes of the buffer alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace pyparam {

// One buffer: all parameters of one device and dtype, in table order, without gaps.
struct PackedGroup {
  at::Tensor flat;
  at::Tensor flat_grad;  // undefined unless gradients are packed
};

// A tensor that was moved, and where to: its place is checked and left by these. The tensor itself
// is held by Python alone: one that native code holds too could not be swapped.
struct PackedMember {
  int64_t index;      // in the table; -1 - i for buffer i, which shares memory with a parameter
  size_t region;      // members of one region share a storage
  at::Tensor target;  // what it became: shape, strides, storage; undefined where it has no elements
  const void* place =
      nullptr;  // its data pointer in the buffer; a storage can change its memory in place
  std::vector<int64_t> strides;  // before packing
  const void* grad_place = nullptr;
};

struct PackedState {
  std::vector<PackedGroup> groups;
  std::vector<PackedMember> members;
  bool grads = false;
};

// Moves the parameters; a buffer moves along where it shares memory with one. All is allocated and
// copied before the first tensor changes, and nothing has changed when this raises. Tensors are
// spoken of as tensors[i], buffers as "a buffer". Needs no GIL.
PackedState pack(at::TensorList parameters, at::TensorList buffers, bool grads);

// Whether a tensor of the table's, at the member's index now, still is the member at its place.
bool in_place(const PackedMember& member, const at::Tensor& then, const at::Tensor& now,
              bool grads);

// Gives every member that is still at its place a storage of its own again, with the strides it
// had; members that share memory keep sharing it. The tensors are those that were packed.
void unpack(PackedState& state, at::TensorList parameters, at::TensorList buffers);

}  // namespace pyparam
