// Which tensors a bulk copy takes, and the words in which it refuses the others. Knows no device.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

namespace pyparam {

// "torch.float32": as Python prints it.
std::string python_name(at::ScalarType dtype);

// The tensors of one bulk copy: a list, or the gradients of a list, and how a message speaks of
// each.
struct Subject {
  at::TensorList tensors;
  bool grad = false;   // the gradients, not the tensors
  bool zeros = false;  // an absent gradient counts as zeros, it is no error
  const std::vector<int64_t>* labels =
      nullptr;  // the index a message gives, where it is not the position

  size_t size() const { return tensors.size(); }
  // An undefined tensor where there is no gradient.
  const at::Tensor& operator[](size_t i) const {
    return grad ? tensors[i].unsafeGetTensorImpl()->grad() : tensors[i];
  }
  // The same, but the tensor itself where its gradient is absent: what gives the shape, dtype and
  // device.
  const at::Tensor& shape(size_t i) const {
    const at::Tensor& chosen = (*this)[i];
    return chosen.defined() ? chosen : tensors[i];
  }
  // "tensors[12]" or "the gradient of tensors[12]".
  std::string spoken(size_t i) const;
  std::string owner(size_t i) const;  // "tensors[12]" in either case
};

// Refuses, as c10::TypeError, a tensor that no bulk copy takes: undefined, sparse, quantized,
// nested. Refuses, as c10::ValueError, an absent gradient that does not count as zeros.
void require_strided(const char* verb, const Subject& subject, size_t i);

// Refuses a list whose members differ in device, or in dtype unless `any_dtype`. Names the first
// that differs and the first of the list. Checks each member with require_strided on the way.
void require_alike(const char* verb, const Subject& subject, bool any_dtype);

// Whether the strides reach every element at a place of its own, found without looking at the
// elements: sorted by stride, each dimension steps over all that the smaller ones reach. (A layout
// that interleaves is taken for one that shares.) For strided tensors of known sizes.
bool distinct_elements(const at::Tensor& tensor);

// The elements of all members together, symbolic where a size is.
c10::SymInt total_elements(const Subject& subject);

}  // namespace pyparam
