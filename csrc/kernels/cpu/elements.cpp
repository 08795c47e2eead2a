#include "kernels/cpu/elements.h"

#include <ATen/Parallel.h>
#include <ATen/ops/resolve_conj.h>
#include <ATen/ops/resolve_neg.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <string>

#include "kernels/cpu/formats.h"
#include "kernels/extent.h"
#include "table/ordinary.h"
#include "table/prefetch.h"

namespace pyparam::cpu {

namespace {

std::string layout_name(at::Layout layout) {
  switch (layout) {
    case at::kSparse:
      return "sparse (layout torch.sparse_coo)";
    case at::kSparseCsr:
      return "sparse (layout torch.sparse_csr)";
    case at::kSparseCsc:
      return "sparse (layout torch.sparse_csc)";
    case at::kSparseBsr:
      return "sparse (layout torch.sparse_bsr)";
    case at::kSparseBsc:
      return "sparse (layout torch.sparse_bsc)";
    case at::kJagged:
      return "nested (layout torch.jagged)";
    default:
      return "of a layout of its own (" + c10::str(layout) + ")";
  }
}

// How elements of a type are stored; of parts 0 where they are not single numbers.
struct Stored {
  Format format;
  uint8_t parts;
  uint8_t bytes;
  bool few;  // whether a few of them are measured together
};

std::array<Stored, static_cast<size_t>(c10::ScalarType::NumOptions)> all_stored() {
  std::array<Stored, static_cast<size_t>(c10::ScalarType::NumOptions)> out{};
  for (size_t i = 0; i < out.size(); ++i) {
    const auto dtype = static_cast<c10::ScalarType>(i);
    const auto format = stored_format(dtype);
    if (!format.has_value()) continue;
    const bool is_complex = c10::isComplexType(dtype);
    const int parts = is_complex ? 2 : 1;
    out[i] = {*format, static_cast<uint8_t>(parts),
              static_cast<uint8_t>(parts * value_size(*format)),
              !is_complex && (*format == Format::kFloat || *format == Format::kHalf ||
                              *format == Format::kBFloat16)};
  }
  return out;
}
const std::array<Stored, static_cast<size_t>(c10::ScalarType::NumOptions)> kStored = all_stored();

// Sets what is told of dense values, but for their address.
PYPARAM_INLINE void set_dense(Elements& e, const Stored& stored, int64_t numel) {
  e.data = nullptr;
  e.strided = -1;
  e.format = stored.format;
  e.value_bytes = stored.bytes / stored.parts;
  e.is_complex = stored.parts == 2;
  e.values = numel * stored.parts;
  e.few = stored.few && static_cast<uint64_t>(numel - 1) < Elements::kFew;
}

}  // namespace

void check_values(const char* op, size_t i, const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(tensor.defined(), op, ": tensors[", i, "] is undefined");
  TORCH_CHECK_VALUE(!tensor.is_meta(), op, ": tensors[", i,
                    "] is on the meta device and has no values");
  TORCH_CHECK_TYPE(!tensor.is_quantized(), op, ": tensors[", i, "] is quantized (",
                   tensor.scalar_type(),
                   "); expected plain numbers, such as those of .dequantize() or .int_repr()");
  TORCH_CHECK_TYPE(!tensor.is_nested(), op, ": tensors[", i,
                   "] is nested; expected a strided tensor, ", "such as one of its .unbind()");
  TORCH_CHECK_TYPE(tensor.layout() == at::kStrided, op, ": tensors[", i, "] is ",
                   layout_name(tensor.layout()),
                   "; expected a strided tensor, such as its .values() or .to_dense()");
  TORCH_CHECK_TYPE(tensor.has_storage(), op, ": tensors[", i,
                   "] has no memory of its own (a wrapper of other tensors)");
  require_extent(tensor, [&] { return c10::str(op, ": tensors[", i, "]"); });
}

void check_plain(const char* op, size_t i, const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(!tensor.defined() || tensor.is_meta() || tensor.device().is_cpu() ||
                        tensor.layout() != at::kStrided,
                    op, ": tensors[", i, "] is on ", tensor.device(),
                    "; expected a tensor on the CPU");
  check_values(op, i, tensor);
}

void check_numbers(const char* op, size_t i, const at::Tensor& tensor) {
  TORCH_CHECK_TYPE(stored_format(tensor.scalar_type()).has_value(), op, ": tensors[", i,
                   "] has dtype ", tensor.scalar_type(),
                   ", whose elements are not single numbers; expected a floating, complex, integer "
                   "or bool dtype");
}

ElementList::ElementList(const char* op, at::TensorList tensors) {
  const auto count = static_cast<int64_t>(tensors.size());
  elements_.resize(tensors.size());
  std::atomic<bool> odd{false};
  at::parallel_for(0, count, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      prefetch_ahead(tensors, static_cast<size_t>(i));
      if (!take_plainest(i, tensors[i])) odd = true;
    }
  });
  if (!odd) return;
  // One after another, so that the first that is wrong is the one refused.
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (elements_[i].values < 0) take(op, i, tensors[i]);
  }
}

std::vector<int64_t> ElementList::numels() const {
  std::vector<int64_t> out(elements_.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = elements_[i].values;
  return out;
}

// False for a tensor that has anything of its own, lies elsewhere or lacks memory.
PYPARAM_INLINE bool ElementList::take_ordinary(size_t i, const at::Tensor& tensor,
                                               const ElementNotes& notes) {
  const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  if (!is_ordinary_cpu(impl)) return false;
  const at::ScalarType dtype = c10::typeMetaToScalarType(impl.dtype());
  const Stored& stored = kStored[static_cast<size_t>(dtype)];
  if (stored.parts == 0) return false;
  const int64_t numel = impl.numel();
  Elements& e = elements_[i];
  set_dense(e, stored, numel);
  if (notes.layouts != nullptr)
    notes.layouts->set(i, impl.sizes(), dtype, at::Device(at::DeviceType::CPU));
  if (numel == 0) return true;
  if (!impl.is_contiguous() && !tensor.is_non_overlapping_and_dense()) return false;
  e.data = dense_memory(impl, numel, stored.bytes);
  if (e.data == nullptr) return false;
  if (notes.memory != nullptr)
    notes.memory->take(i, *impl.unsafe_storage().unsafeGetStorageImpl(), e.data,
                       numel * stored.bytes);
  return true;
}

OrdinaryReader::OrdinaryReader(at::TensorList tensors, const ElementNotes& notes)
    : tensors_(tensors), notes_(notes) {
  list_.elements_.resize(tensors.size());
  if (notes.layouts != nullptr) notes.layouts->resize(tensors.size());
  if (notes.memory != nullptr) notes.memory->resize(tensors.size());
}

bool OrdinaryReader::read(size_t begin, size_t end) {
  if (odd_.load(std::memory_order_relaxed)) return false;
  for (size_t i = begin; i < end; ++i) {
    prefetch_ahead(tensors_, i);
    if (!list_.take_ordinary(i, tensors_[i], notes_)) {
      odd_ = true;
      return false;
    }
    const Elements& e = list_.elements_[i];
    if (e.few) prefetch_span(e.data, e.bytes());
  }
  return true;
}

std::optional<ElementList> ElementList::of_made(size_t count,
                                                const std::function<at::Tensor(size_t)>& make,
                                                const ElementNotes& notes) {
  ElementList list;
  list.elements_.resize(count);
  if (notes.layouts != nullptr) notes.layouts->resize(count);
  if (notes.memory != nullptr) notes.memory->resize(count);
  constexpr size_t kBlock = LayoutColumns::kBlock;
  std::atomic<bool> odd{false};
  at::parallel_for(0, static_cast<int64_t>((count + kBlock - 1) / kBlock), 1,
                   [&](int64_t begin, int64_t end) {
                     const size_t last = std::min(static_cast<size_t>(end) * kBlock, count);
                     for (size_t i = static_cast<size_t>(begin) * kBlock; i < last && !odd; ++i) {
                       if (!list.take_ordinary(i, make(i), notes)) odd = true;
                     }
                   });
  if (odd) return std::nullopt;
  return list;
}

// An ordinary tensor over dense memory. False, and -1 for its values, for any other.
bool ElementList::take_plainest(size_t i, const at::Tensor& tensor) {
  using c10::DispatchKey;
  constexpr c10::DispatchKeySet kOdd(
      {DispatchKey::Conjugate, DispatchKey::Negative, DispatchKey::ZeroTensor});
  Elements& e = elements_[i];
  e = {};
  e.values = -1;
  if (!tensor.defined() || !tensor.key_set().has(DispatchKey::CPU) ||
      tensor.key_set().has_any(kOdd))
    return false;
  if (tensor.layout() != at::kStrided || !tensor.has_storage()) return false;
  const Stored& stored = kStored[static_cast<size_t>(tensor.scalar_type())];
  if (stored.parts == 0) return false;
  if (!tensor.is_contiguous() && !tensor.is_non_overlapping_and_dense()) return false;
  if (!has_extent(tensor)) return false;
  set_dense(e, stored, tensor.numel());
  e.data = e.values == 0 ? nullptr : static_cast<const char*>(tensor.const_data_ptr());
  return true;
}

void ElementList::take(const char* op, size_t i, const at::Tensor& given) {
  check_plain(op, i, given);
  const at::Tensor* tensor = &given;
  if (given.is_conj() || given.is_neg()) {
    require_extent(given, [&] { return c10::str(op, ": tensors[", i, "]"); });
    resolved_.push_back(given.resolve_conj().resolve_neg());
    tensor = &resolved_.back();
  }
  if (take_plainest(i, *tensor)) return;
  check_numbers(op, i, *tensor);
  const auto format = stored_format(tensor->scalar_type());
  Elements& e = elements_[i];
  e.format = *format;
  e.value_bytes = static_cast<uint8_t>(value_size(*format));
  e.is_complex = tensor->is_complex();
  e.values = tensor->numel() * (e.is_complex ? 2 : 1);
  e.data = static_cast<const char*>(tensor->const_data_ptr());
  e.strided = static_cast<int32_t>(views_.size());
  views_.emplace_back(*tensor);
}

}  // namespace pyparam::cpu
