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

MappedRows::MappedRows(std::vector<Part> parts, std::vector<uint64_t> places)
    : parts_(std::move(parts)), places_(std::move(places)) {
  for (const uint64_t place : places_) {
    if (parts_.empty() || place / parts_.size() >= parts_[place % parts_.size()].entries->size())
      throw std::out_of_range("internal error, please report: a row of no entry");
  }
}

at::Tensor MappedRows::tensor(size_t row) const {
  const Part& part = parts_[places_.at(row) % parts_.size()];
  const auto [entries, entry] = at(row);
  return part.bytes->tensor(entries->begins[entry], entries->dtypes[entry], entries->shape(entry));
}

const char* MappedRows::data(size_t row) const {
  const auto [entries, entry] = at(row);
  if (c10::multiply_integers(entries->shape(entry)) == 0) return nullptr;
  const char* const from =
      parts_[places_[row] % parts_.size()].bytes->data() + entries->begins[entry];
  const bool aligned =
      reinterpret_cast<uintptr_t>(from) % c10::elementSize(entries->dtypes[entry]) == 0;
  return aligned ? from : nullptr;
}

bool MappedRows::in_place() const {
  for (size_t row = 0; row < size(); ++row) {
    if (data(row) == nullptr && c10::multiply_integers(shape(row)) != 0) return false;
  }
  return true;
}

MappedRows MappedRows::take(const std::vector<int64_t>& rows) const {
  std::vector<uint64_t> places;
  places.reserve(rows.size());
  for (const int64_t row : rows) places.push_back(places_.at(static_cast<size_t>(row)));
  return {parts_, std::move(places)};
}

}  // namespace pyparam::files
