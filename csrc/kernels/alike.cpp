#include "kernels/alike.h"

#include <c10/util/Exception.h>
#include <c10/util/SmallVector.h>

#include <algorithm>

#include "kernels/extent.h"

namespace pyparam {

std::string python_name(at::ScalarType dtype) {
  return "torch." + std::string(c10::getDtypeNames(dtype).first);
}

namespace {

const char* layout_name(at::Layout layout) {
  switch (layout) {
    case at::kStrided:
      return "torch.strided";
    case at::kSparse:
      return "torch.sparse_coo";
    case at::kSparseCsr:
      return "torch.sparse_csr";
    case at::kSparseCsc:
      return "torch.sparse_csc";
    case at::kSparseBsr:
      return "torch.sparse_bsr";
    case at::kSparseBsc:
      return "torch.sparse_bsc";
    case at::kMkldnn:
      return "torch._mkldnn";
    case at::kJagged:
      return "torch.jagged";
    default:
      return "unknown";
  }
}

}  // namespace

std::string Subject::owner(size_t i) const {
  return "tensors[" + std::to_string(labels == nullptr ? static_cast<int64_t>(i) : (*labels)[i]) +
         "]";
}

std::string Subject::spoken(size_t i) const { return (grad ? "the gradient of " : "") + owner(i); }

void require_strided(const char* verb, const Subject& subject, size_t i) {
  const at::Tensor& tensor = subject[i];
  if (!tensor.defined()) {
    TORCH_CHECK_TYPE(subject.grad, verb, ": ", subject.spoken(i),
                     " is undefined; expected a strided tensor");
    TORCH_CHECK_VALUE(subject.zeros, verb, ": ", subject.owner(i),
                      " has no gradient; expected one (with missing=\"zeros\" it counts as zeros)");
    return;
  }
  TORCH_CHECK_TYPE(
      !tensor.is_nested(), verb, ": ", subject.spoken(i),
      " is a nested tensor; expected a strided tensor (torch.nested has unbind() for its parts)");
  TORCH_CHECK_TYPE(tensor.layout() == at::kStrided, verb, ": ", subject.spoken(i),
                   " is sparse (layout ", layout_name(tensor.layout()),
                   "); expected a strided tensor (to_dense() gives one)");
  TORCH_CHECK_TYPE(!tensor.is_quantized(), verb, ": ", subject.spoken(i), " is quantized (",
                   tensor.dtype().name(), "); expected a strided tensor (dequantize() gives one)");
  require_extent(tensor, [&] { return c10::str(verb, ": ", subject.spoken(i)); });
}

void require_alike(const char* verb, const Subject& subject, bool any_dtype) {
  const at::Tensor* first = nullptr;
  size_t first_index = 0;
  for (size_t i = 0; i < subject.size(); ++i) {
    require_strided(verb, subject, i);
    const at::Tensor& tensor = subject.shape(i);
    if (first == nullptr) {
      first = &tensor;
      first_index = i;
      continue;
    }
    TORCH_CHECK_TYPE(tensor.device() == first->device(), verb, ": ", subject.spoken(first_index),
                     " is on ", first->device(), " and ", subject.spoken(i), " on ",
                     tensor.device(),
                     "; expected one device (flatten_groups gives one vector a device and dtype)");
    TORCH_CHECK_TYPE(
        any_dtype || tensor.scalar_type() == first->scalar_type(), verb, ": ",
        subject.spoken(first_index), " is ", python_name(first->scalar_type()), " and ",
        subject.spoken(i), " is ", python_name(tensor.scalar_type()),
        "; expected one dtype (dtype= converts, flatten_groups gives one vector a dtype)");
  }
}

bool distinct_elements(const at::Tensor& tensor) {
  if (tensor.is_contiguous()) return true;
  c10::SmallVector<std::pair<int64_t, int64_t>, 6> dims;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) > 1) dims.emplace_back(tensor.stride(d), tensor.size(d));
  }
  std::sort(dims.begin(), dims.end());
  int64_t reached = 0;
  for (const auto& [stride, size] : dims) {
    if (stride <= reached) return false;
    reached += (size - 1) * stride;
  }
  return true;
}

c10::SymInt total_elements(const Subject& subject) {
  c10::SymInt total = 0;
  for (size_t i = 0; i < subject.size(); ++i) {
    total = total + subject.shape(i).sym_numel();
  }
  return total;
}

}  // namespace pyparam
