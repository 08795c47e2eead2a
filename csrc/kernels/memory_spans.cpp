#include "kernels/memory_spans.h"

#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <map>

namespace pyparam {

bool is_plain_memory(const at::Tensor& tensor) {
  if (!tensor.defined()) return false;
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  return impl->layout() == at::kStrided && impl->has_storage() &&
         !impl->has_symbolic_sizes_strides() && !tensor.is_conj() && !tensor.is_neg() &&
         !tensor.is_nested() && !tensor.is_quantized() && !tensor._is_zerotensor() &&
         !impl->key_set().has(c10::DispatchKey::Python);
}

bool all_plain_memory(at::TensorList tensors) {
  return std::all_of(tensors.begin(), tensors.end(), is_plain_memory);
}

void require_apart(at::TensorList tensors, const at::Tensor& out) {
  const Span all = span_of(out);
  int64_t position = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Span span = span_of(tensors[i]);
    const bool in_place = tensors[i].is_contiguous() &&
                          tensors[i].scalar_type() == out.scalar_type() &&
                          span.begin == all.begin + position * static_cast<int64_t>(out.itemsize());
    TORCH_CHECK_VALUE(span.empty() || in_place || !span.meets(all), "flatten: out overlaps ",
                      Subject{tensors}.spoken(i), " in memory; expected memory apart");
    position += tensors[i].numel();
  }
}

void require_writable(const char* verb, at::TensorList tensors) {
  const bool inference = c10::InferenceMode::is_enabled();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor& tensor = tensors[i];
    TORCH_CHECK_VALUE(inference || !tensor.is_inference(), verb, ": tensors[", i,
                      "] is an inference tensor; outside inference mode it cannot be written");
    TORCH_CHECK_VALUE(tensor.numel() == 0 || distinct_elements(tensor), verb, ": tensors[", i,
                      "] has elements that share memory (shape ", tensor.sizes(), ", stride ",
                      tensor.strides(), "); expected one that can be written, which contiguous() ",
                      "gives");
  }
}

bool reads_what_it_writes(at::TensorList tensors, const at::Tensor& vector) {
  const Span all = span_of(vector);
  int64_t position = 0;
  for (const at::Tensor& tensor : tensors) {
    const Span span = span_of(tensor);
    const bool in_place =
        tensor.is_contiguous() &&
        span.begin == all.begin + position * static_cast<int64_t>(vector.itemsize());
    if (!span.empty() && !in_place && span.meets(all)) return true;
    position += tensor.numel();
  }
  return false;
}

std::vector<at::TensorList> pieces_apart(at::TensorList tensors) {
  std::vector<Span> spans;
  spans.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    const Span span = span_of(tensor);
    if (!span.empty()) spans.push_back(span);
  }
  if (!any_meet(spans)) return {tensors};

  std::vector<at::TensorList> pieces;
  std::map<const char*, const char*> taken;  // of the piece at hand: begin to end, apart
  size_t first = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Span span = span_of(tensors[i]);
    if (span.empty()) continue;
    const auto next = taken.lower_bound(span.begin);
    const bool meets = (next != taken.end() && next->first < span.end) ||
                       (next != taken.begin() && std::prev(next)->second > span.begin);
    if (meets) {
      pieces.push_back(tensors.slice(first, i - first));
      taken.clear();
      first = i;
    }
    taken.emplace(span.begin, span.end);
  }
  pieces.push_back(tensors.slice(first));
  return pieces;
}

}  // namespace pyparam
