#include "table/layout_kinds.h"

#include <string>

#include "kernels/extent.h"
#include "table/prefetch.h"

namespace pyparam {

namespace {

template <typename T>
void put_value(std::string& key, T value) {
  key.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

bool tells_sizes(const c10::TensorImpl& impl) {
  return !impl.has_symbolic_sizes_strides() && !impl.key_set().has(c10::DispatchKey::Python) &&
         !impl.key_set().has(c10::DispatchKey::NestedTensor);
}

}  // namespace

LayoutKinds layout_kinds(const std::vector<at::Tensor>& tensors) {
  KindNumbers kinds(tensors.size());
  std::string key;
  for (size_t i = 0; i < tensors.size(); ++i) {
    prefetch_ahead(tensors, i);
    const at::Tensor& tensor = tensors[i];
    const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
    key.clear();
    bool plain = tells_sizes(impl);
    // A lazy module's parameter is a class of Python alone, and has no elements yet.
    if (plain && impl.numel() > 0) {
      put_value(key, impl.dtype().id());
      put_value(key, tensor.device().type());
      put_value(key, tensor.device().index());
      for (const int64_t size : impl.sizes()) put_value(key, size);
      plain = impl.layout() == at::kStrided && !tensor.is_quantized() && !tensor.is_meta() &&
              has_extent(tensor);
    } else {
      plain = false;
      put_value(key, &impl);
    }
    kinds.add(key, !plain);
  }
  return kinds.finished();
}

}  // namespace pyparam
