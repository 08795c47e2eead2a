#include "kernels/cpu/elements.h"

#include <ATen/Parallel.h>
#include <ATen/ops/resolve_conj.h>
#include <ATen/ops/resolve_neg.h>
#include <c10/util/Exception.h>

#include <algorithm>
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

// Sets what is told of dense values, but for their address.
PYPARAM_INLINE void set_dense(Elements& e, Format format, bool is_complex, int64_t numel) {
  e.format = format;
  e.is_complex = is_complex;
  e.values = is_complex ? 2 * numel : numel;
  e.few = static_cast<uint64_t>(e.values - 1) < Elements::kFew && !is_complex &&
          (format == Format::kFloat || format == Format::kHalf || format == Format::kBFloat16);
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
  numels_.resize(tensors.size());
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
    if (numels_[i] < 0) take(op, i, tensors[i]);
  }
}

// False for a tensor that has anything of its own, lies elsewhere or lacks memory.
PYPARAM_INLINE bool ElementList::take_ordinary(size_t i, const at::Tensor& tensor,
                                               ApartCheck* memory) {
  const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  if (!is_ordinary_cpu(impl)) return false;
  const at::ScalarType dtype = c10::typeMetaToScalarType(impl.dtype());
  const auto format = stored_format(dtype);
  if (!format.has_value()) return false;
  const int64_t numel = impl.numel();
  Elements& e = elements_[i];
  set_dense(e, *format, c10::isComplexType(dtype), numel);
  numels_[i] = e.values;
  if (numel == 0) return true;
  if (!impl.is_contiguous() && !tensor.is_non_overlapping_and_dense()) return false;
  // Dense: its elements fill as many places, the first of them at its offset.
  const c10::StorageImpl& storage = *impl.unsafe_storage().unsafeGetStorageImpl();
  const auto* base = static_cast<const char*>(storage.data());
  const uint64_t item = impl.itemsize();
  const auto offset = static_cast<uint64_t>(impl.storage_offset());
  uint64_t needed = 0;
  if (__builtin_mul_overflow(offset + static_cast<uint64_t>(numel), item, &needed) ||
      needed > storage.nbytes() || base == nullptr)
    return false;
  e.data = base + offset * item;
  if (memory != nullptr) memory->take(i, storage, e.data, static_cast<int64_t>(item) * numel);
  return true;
}

namespace {

// Tensors of a list, which are asked for ahead, and tensors that are made where they are read.
struct Listed {
  at::TensorList tensors;

  void prefetch(size_t i) const { prefetch_ahead(tensors, i); }
  const at::Tensor& operator()(size_t i) const { return tensors[i]; }
};
struct Made {
  const std::function<at::Tensor(size_t)>& make;

  void prefetch(size_t) const {}
  at::Tensor operator()(size_t i) const { return make(i); }
};

}  // namespace

template <typename Tensors>
std::optional<ElementList> ElementList::read_ordinary(size_t count, const Tensors& tensors,
                                                      const Notes& notes) {
  ElementList list;
  list.elements_.resize(count);
  list.numels_.resize(count);
  if (notes.layouts != nullptr) notes.layouts->resize(count);
  if (notes.memory != nullptr) notes.memory->resize(count);
  constexpr size_t kBlock = LayoutColumns::kBlock;
  std::atomic<bool> odd{false};
  const auto read_block = [&](size_t block) {
    const size_t begin = block * kBlock;
    const size_t end = std::min(begin + kBlock, count);
    LayoutColumns::Block* layouts =
        notes.layouts == nullptr ? nullptr : &notes.layouts->block(block);
    if (layouts != nullptr) layouts->reserve(end - begin);
    for (size_t i = begin; i < end; ++i) {
      tensors.prefetch(i);
      const at::Tensor& tensor = tensors(i);
      if (!list.take_ordinary(i, tensor, notes.memory)) {
        odd = true;
        return;
      }
      if (layouts != nullptr) layouts->append(tensor);
    }
  };
  at::parallel_for(0, static_cast<int64_t>((count + kBlock - 1) / kBlock), 1,
                   [&](int64_t begin, int64_t end) {
                     for (int64_t block = begin; block < end && !odd; ++block)
                       read_block(static_cast<size_t>(block));
                   });
  if (odd) return std::nullopt;
  return list;
}

std::optional<ElementList> ElementList::of_ordinary(at::TensorList tensors, const Notes& notes) {
  return read_ordinary(tensors.size(), Listed{tensors}, notes);
}

std::optional<ElementList> ElementList::of_made(size_t count,
                                                const std::function<at::Tensor(size_t)>& make,
                                                const Notes& notes) {
  return read_ordinary(count, Made{make}, notes);
}

// An ordinary tensor over dense memory. False, and -1 for its numel, for any other.
bool ElementList::take_plainest(size_t i, const at::Tensor& tensor) {
  using c10::DispatchKey;
  constexpr c10::DispatchKeySet kOdd(
      {DispatchKey::Conjugate, DispatchKey::Negative, DispatchKey::ZeroTensor});
  numels_[i] = -1;
  if (!tensor.defined() || !tensor.key_set().has(DispatchKey::CPU) ||
      tensor.key_set().has_any(kOdd))
    return false;
  if (tensor.layout() != at::kStrided || !tensor.has_storage()) return false;
  const auto format = stored_format(tensor.scalar_type());
  if (!format.has_value()) return false;
  if (!tensor.is_contiguous() && !tensor.is_non_overlapping_and_dense()) return false;
  if (!has_extent(tensor)) return false;
  Elements& e = elements_[i];
  set_dense(e, *format, tensor.is_complex(), tensor.numel());
  e.data = e.values == 0 ? nullptr : static_cast<const char*>(tensor.const_data_ptr());
  numels_[i] = e.values;
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
  e.is_complex = tensor->is_complex();
  e.values = tensor->numel() * (e.is_complex ? 2 : 1);
  e.data = static_cast<const char*>(tensor->const_data_ptr());
  e.strided = static_cast<int32_t>(views_.size());
  views_.emplace_back(*tensor);
  numels_[i] = e.values;
}

}  // namespace pyparam::cpu
