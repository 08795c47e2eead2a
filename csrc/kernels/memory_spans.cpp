#include "kernels/memory_spans.h"

#include <ATen/ops/from_blob.h>
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

namespace {

// A tensor of a list, and where it lies.
struct Placed {
  Span span;
  size_t index;
};

// Elements of a run of memory, marked one by one.
class Marks {
 public:
  Marks(const char* begin, int64_t elements, int64_t item)
      : begin_(begin), item_(item), marked_(static_cast<size_t>(elements)) {}

  void add(const at::Tensor& tensor) {
    auto first = (static_cast<const char*>(tensor.const_data_ptr()) - begin_) / item_;
    if (tensor.is_non_overlapping_and_dense()) {
      std::fill_n(marked_.begin() + first, tensor.numel(), true);
      return;
    }
    const auto sizes = tensor.sizes();
    const auto strides = tensor.strides();
    std::vector<int64_t> index(sizes.size());
    for (int64_t left = tensor.numel(); left > 0; --left) {
      marked_[static_cast<size_t>(first)] = true;
      for (size_t d = sizes.size(); d-- > 0;) {
        first += strides[d];
        if (++index[d] < sizes[d]) break;
        first -= index[d] * strides[d];
        index[d] = 0;
      }
    }
  }

  // The runs of marked elements, as vectors over the memory.
  void append_runs(const at::TensorOptions& options, std::vector<at::Tensor>& out) const {
    const auto none = marked_.end();
    for (auto at = std::find(marked_.begin(), none, true); at != none;) {
      const auto end = std::find(at, none, false);
      auto* const from = const_cast<char*>(begin_) + (at - marked_.begin()) * item_;
      out.push_back(at::for_blob(from, {end - at}).options(options).make_tensor());
      at = std::find(end, none, true);
    }
  }

 private:
  const char* begin_;
  int64_t item_;
  std::vector<bool> marked_;
};

}  // namespace

std::optional<std::vector<at::Tensor>> each_byte_once(const char* verb, at::TensorList tensors) {
  std::vector<Placed> order;
  std::vector<Span> spans;
  order.reserve(tensors.size());
  spans.reserve(tensors.size());
  bool distinct = true;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Span span = span_of(tensors[i]);
    if (span.empty()) continue;
    order.push_back({span, i});
    spans.push_back(span);
    distinct &= distinct_elements(tensors[i]);
  }
  if (distinct && !any_meet(spans)) return std::nullopt;

  std::sort(order.begin(), order.end(),
            [](const Placed& a, const Placed& b) { return a.span.begin < b.span.begin; });
  std::vector<at::Tensor> out;
  for (size_t first = 0, next = 0; first < order.size(); first = next) {
    const at::Tensor& leader = tensors[order[first].index];
    const auto item = static_cast<int64_t>(leader.itemsize());
    Span all = order[first].span;
    for (next = first + 1; next < order.size() && order[next].span.begin < all.end; ++next)
      all.end = std::max(all.end, order[next].span.end);
    if (next == first + 1 && distinct_elements(leader)) {
      out.push_back(leader);
      continue;
    }
    Marks marks(all.begin, (all.end - all.begin) / item, item);
    for (size_t k = first; k < next; ++k) {
      const at::Tensor& tensor = tensors[order[k].index];
      TORCH_CHECK_VALUE(tensor.scalar_type() == leader.scalar_type() &&
                            (order[k].span.begin - all.begin) % item == 0,
                        verb, ": tensors[", order[first].index, "] (", leader.scalar_type(),
                        ") and tensors[", order[k].index, "] (", tensor.scalar_type(),
                        ") overlap in memory and have no elements in common");
      marks.add(tensor);
    }
    marks.append_runs(leader.options(), out);
  }
  return out;
}

}  // namespace pyparam
