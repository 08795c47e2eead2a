// The dispatcher ops of the flatten family, as C++ calls them, and the checks that all devices
// share.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "kernels/alike.h"

namespace pyparam {

// Through the dispatcher: any device, any wrapper, autograd.
at::Tensor flatten(at::TensorList tensors, std::optional<at::ScalarType> dtype);
void flatten_out(at::TensorList tensors, std::optional<at::ScalarType> dtype, at::Tensor& out);
void scatter_(at::TensorList tensors, const at::Tensor& vector);
std::vector<at::Tensor> unflatten(const at::Tensor& vector, at::TensorList like);

// Whether the dispatcher would lead a list of ordinary CPU tensors straight to the CPU kernel: no
// mode is on.
bool dispatch_is_plain();

// The dtype of a flattened subject: the one asked for, else the first member's, else the default.
at::ScalarType flat_dtype(const Subject& subject, std::optional<at::ScalarType> dtype);

// Refuse an output, a vector, a scatter that does not fit, as c10::TypeError and c10::ValueError.
void require_out(const c10::SymInt& numel, at::ScalarType dtype,
                 const std::optional<at::Device>& device, const at::Tensor& out);
void require_vector(const char* verb, const c10::SymInt& numel, const at::Tensor& vector);
void require_scatter(const Subject& subject, const at::Tensor& vector);

// Made of torch's operators, one tensor after the other: for devices without kernels of their own,
// and for the tensors that a device's kernel does not know.
at::Tensor flatten_anywhere(at::TensorList tensors, std::optional<at::ScalarType> dtype);
void flatten_out_anywhere(at::TensorList tensors, std::optional<at::ScalarType> dtype,
                          at::Tensor& out);
void scatter_anywhere(at::TensorList tensors, const at::Tensor& vector);

namespace cpu {

// The CPU kernels, for a subject that need not be a plain list. nullopt or false where some tensor
// is not an ordinary CPU tensor, and then nothing has happened. `inspect` is called with the
// indices of the tensors without elements before anything is allocated or written.
using Inspect = void (*)(const char* verb, const Subject&, const std::vector<size_t>& empties);
std::optional<at::Tensor> flatten(const Subject& subject, std::optional<at::ScalarType> dtype,
                                  Inspect inspect);
bool flatten_out(const Subject& subject, std::optional<at::ScalarType> dtype, at::Tensor& out,
                 Inspect inspect);
bool scatter_(const Subject& subject, const at::Tensor& vector, Inspect inspect);

}  // namespace cpu
}  // namespace pyparam
