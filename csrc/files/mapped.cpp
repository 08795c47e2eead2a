#include "files/mapped.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/StorageImpl.h>
#include <c10/core/TensorImpl.h>
#include <c10/util/accumulate.h>

#include <cstring>
#include <stdexcept>

namespace pyparam::files {

MappedBytes::MappedBytes(void* data, size_t size, std::shared_ptr<void> owner)
    : data_(static_cast<char*>(data)),
      size_(size),
      hold_(c10::make_intrusive<Hold>(std::move(owner))) {}

at::Tensor MappedBytes::tensor(uint64_t begin, at::ScalarType dtype, at::IntArrayRef shape) const {
  const size_t item = c10::elementSize(dtype);
  const auto count = static_cast<uint64_t>(c10::multiply_integers(shape));
  if (count == 0) return at::detail::empty_cpu(shape, dtype);
  if (begin > size_ || count > (size_ - begin) / item) {
    throw std::out_of_range("internal error, please report: a tensor reaches beyond its file");
  }
  char* const from = data_ + begin;
  const size_t bytes = count * item;
  if (reinterpret_cast<uintptr_t>(from) % item != 0) {
    at::Tensor own = at::detail::empty_cpu(shape, dtype);
    std::memcpy(own.mutable_data_ptr(), from, bytes);
    return own;
  }
  c10::raw::intrusive_ptr::incref(hold_.get());
  auto storage = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), bytes,
      c10::DataPtr(from, hold_.get(), &MappedBytes::drop, at::Device(at::kCPU)), nullptr,
      /*resizable=*/false);
  at::Tensor made = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU),
      c10::scalarTypeToTypeMeta(dtype));
  made.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
  return made;
}

void MappedEntries::append(uint64_t begin, at::ScalarType dtype, at::IntArrayRef shape) {
  begins.push_back(begin);
  dtypes.push_back(dtype);
  extents.insert(extents.end(), shape.begin(), shape.end());
  shape_ends.push_back(extents.size());
}

at::IntArrayRef MappedEntries::shape(size_t entry) const {
  const size_t begin = entry == 0 ? 0 : shape_ends.at(entry - 1);
  return {extents.data() + begin, shape_ends.at(entry) - begin};
}

}  // namespace pyparam::files
