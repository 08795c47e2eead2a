// flatten and its siblings on any device: what each checks, how Meta answers, how a device without
// kernels of its own answers, and the way through the dispatcher. The fast kernels stand in
// kernels/<device>.
#include "kernels/flatten.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

namespace pyparam {

at::Tensor flatten(at::TensorList tensors, std::optional<at::ScalarType> dtype) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("pyparam::flatten", "")
                             .typed<at::Tensor(at::TensorList, std::optional<at::ScalarType>)>();
  return op.call(tensors, dtype);
}

void flatten_out(at::TensorList tensors, std::optional<at::ScalarType> dtype, at::Tensor& out) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("pyparam::flatten", "out")
          .typed<void(at::TensorList, std::optional<at::ScalarType>, at::Tensor&)>();
  op.call(tensors, dtype, out);
}

void scatter_(at::TensorList tensors, const at::Tensor& vector) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("pyparam::scatter_", "")
                             .typed<void(at::TensorList, const at::Tensor&)>();
  op.call(tensors, vector);
}

std::vector<at::Tensor> unflatten(const at::Tensor& vector, at::TensorList like) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("pyparam::unflatten", "")
                             .typed<std::vector<at::Tensor>(const at::Tensor&, at::TensorList)>();
  return op.call(vector, like);
}

bool dispatch_is_plain() {
  const auto keys = c10::impl::tls_local_dispatch_key_set();
  return (keys.included_ - c10::default_included_set).empty();
}

at::ScalarType flat_dtype(const Subject& subject, std::optional<at::ScalarType> dtype) {
  if (dtype.has_value()) return *dtype;
  if (subject.size() == 0) return c10::typeMetaToScalarType(c10::get_default_dtype());
  return subject.shape(0).scalar_type();
}

void require_out(const c10::SymInt& numel, at::ScalarType dtype,
                 const std::optional<at::Device>& device, const at::Tensor& out) {
  TORCH_CHECK_TYPE(out.layout() == at::kStrided && !out.is_quantized() && !out.is_nested(),
                   "flatten: out is not a strided tensor");
  TORCH_CHECK_TYPE(!device.has_value() || out.device() == *device, "flatten: out is on ",
                   out.device(), "; expected ", *device, ", where the tensors are");
  TORCH_CHECK_TYPE(out.scalar_type() == dtype, "flatten: out is torch.",
                   c10::getDtypeNames(out.scalar_type()).first, "; expected torch.",
                   c10::getDtypeNames(dtype).first);
  TORCH_CHECK_VALUE(out.dim() == 1 && out.sym_size(0) == numel, "flatten: out has shape ",
                    out.sym_sizes(), "; expected [", numel, "]");
  TORCH_CHECK_VALUE(out.is_contiguous(), "flatten: out has stride ", out.sym_strides(),
                    "; expected a contiguous vector");
  TORCH_CHECK_VALUE(!out.is_conj() && !out.is_neg(),
                    "flatten: out is a lazy conjugate or negative view");
}

void require_vector(const char* verb, const c10::SymInt& numel, const at::Tensor& vector) {
  TORCH_CHECK_TYPE(vector.layout() == at::kStrided && !vector.is_quantized() && !vector.is_nested(),
                   verb, ": the vector is not a strided tensor");
  TORCH_CHECK_VALUE(vector.dim() == 1, verb, ": the vector has shape ", vector.sym_sizes(),
                    "; expected one dimension");
  TORCH_CHECK_VALUE(vector.sym_size(0) == numel, verb, ": the vector is too ",
                    vector.sym_size(0) > numel ? "long" : "short", ": it has ", vector.sym_size(0),
                    " values; expected ", numel);
}

void require_scatter(const Subject& subject, const at::Tensor& vector) {
  require_vector("scatter_", total_elements(subject), vector);
  for (size_t i = 0; i < subject.size(); ++i) {
    require_strided("scatter_", subject, i);
    const at::Tensor& tensor = subject[i];
    TORCH_CHECK_TYPE(tensor.device() == vector.device(), "scatter_: ", subject.spoken(i), " is on ",
                     tensor.device(), " and the vector on ", vector.device(),
                     "; expected one device");
    TORCH_CHECK_TYPE(tensor.scalar_type() == vector.scalar_type(), "scatter_: ", subject.spoken(i),
                     " is torch.", c10::getDtypeNames(tensor.scalar_type()).first,
                     " and the vector torch.", c10::getDtypeNames(vector.scalar_type()).first,
                     "; expected one dtype (vector.to(...) converts before)");
  }
}

namespace {

std::optional<at::Device> device_of(const Subject& subject) {
  if (subject.size() == 0) return std::nullopt;
  return subject.tensors[0].device();
}

}  // namespace

// A device without kernels of its own: torch's operators, one tensor after the other.
at::Tensor flatten_anywhere(at::TensorList tensors, std::optional<at::ScalarType> dtype) {
  const Subject subject{tensors};
  require_alike("flatten", subject, dtype.has_value());
  const at::ScalarType to = flat_dtype(subject, dtype);
  if (tensors.empty()) return at::empty({0}, at::TensorOptions(to));
  std::vector<at::Tensor> parts;
  parts.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) parts.push_back(tensor.reshape({-1}).to(to));
  return at::cat(parts);
}

void flatten_out_anywhere(at::TensorList tensors, std::optional<at::ScalarType> dtype,
                          at::Tensor& out) {
  const Subject subject{tensors};
  require_alike("flatten", subject, dtype.has_value());
  require_out(total_elements(subject), flat_dtype(subject, dtype), device_of(subject), out);
  c10::SymInt offset = 0;
  for (const at::Tensor& tensor : tensors) {
    out.narrow_symint(0, offset, tensor.sym_numel()).copy_(tensor.reshape({-1}));
    offset = offset + tensor.sym_numel();
  }
}

void scatter_anywhere(at::TensorList tensors, const at::Tensor& vector) {
  require_scatter({tensors}, vector);
  for (size_t i = 0; i < tensors.size(); ++i) {
    TORCH_CHECK_VALUE(tensors[i].numel() == 0 || distinct_elements(tensors[i]),
                      "scatter_: tensors[", i,
                      "] has elements that share memory; expected one that can be written");
  }
  c10::SymInt offset = 0;
  for (const at::Tensor& tensor : tensors) {
    tensor.copy_(
        vector.narrow_symint(0, offset, tensor.sym_numel()).view_symint(tensor.sym_sizes()));
    offset = offset + tensor.sym_numel();
  }
}

namespace {

at::Tensor flatten_meta(at::TensorList tensors, std::optional<at::ScalarType> dtype) {
  const Subject subject{tensors};
  require_alike("flatten", subject, dtype.has_value());
  return at::empty_symint({total_elements(subject)},
                          at::TensorOptions(flat_dtype(subject, dtype)).device(at::kMeta));
}

void flatten_out_meta(at::TensorList tensors, std::optional<at::ScalarType> dtype,
                      at::Tensor& out) {
  const Subject subject{tensors};
  require_alike("flatten", subject, dtype.has_value());
  require_out(total_elements(subject), flat_dtype(subject, dtype), device_of(subject), out);
}

void scatter_meta(at::TensorList tensors, const at::Tensor& vector) {
  require_scatter({tensors}, vector);
}

std::vector<at::Tensor> unflatten_views(const at::Tensor& vector, at::TensorList like) {
  const Subject subject{like};
  for (size_t i = 0; i < like.size(); ++i) {
    TORCH_CHECK_TYPE(like[i].defined() && !like[i].is_nested(), "unflatten: ", subject.spoken(i),
                     " has no shape");
  }
  require_vector("unflatten", total_elements(subject), vector);
  std::vector<at::Tensor> views;
  views.reserve(like.size());
  c10::SymInt offset = 0;
  for (const at::Tensor& tensor : like) {
    views.push_back(
        vector.narrow_symint(0, offset, tensor.sym_numel()).view_symint(tensor.sym_sizes()));
    offset = offset + tensor.sym_numel();
  }
  return views;
}

}  // namespace
}  // namespace pyparam

namespace {

void define_anywhere(torch::Library& m) {
  m.impl("flatten", &pyparam::flatten_anywhere);
  m.impl("flatten.out", &pyparam::flatten_out_anywhere);
  m.impl("scatter_", &pyparam::scatter_anywhere);
}

}  // namespace

TORCH_LIBRARY_IMPL(pyparam, CompositeExplicitAutograd, m) { define_anywhere(m); }
// The alias above leaves nested tensors out, and they too are to be refused by name.
TORCH_LIBRARY_IMPL(pyparam, NestedTensorCPU, m) { define_anywhere(m); }
TORCH_LIBRARY_IMPL(pyparam, NestedTensorCUDA, m) { define_anywhere(m); }

TORCH_LIBRARY_IMPL(pyparam, CompositeImplicitAutograd, m) {
  m.impl("unflatten", &pyparam::unflatten_views);
}

// The batching keys do not look at composite kernels of other libraries by themselves.
TORCH_LIBRARY_IMPL(pyparam, FuncTorchBatched, m) { m.impl("unflatten", &pyparam::unflatten_views); }

TORCH_LIBRARY_IMPL(pyparam, Meta, m) {
  m.impl("flatten", &pyparam::flatten_meta);
  m.impl("flatten.out", &pyparam::flatten_out_meta);
  m.impl("scatter_", &pyparam::scatter_meta);
}
