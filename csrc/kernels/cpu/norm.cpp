// total_norm and clip_grad_norm_: the norm of many tensors as of one vector, and scaling by it.
#include "kernels/cpu/norm.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/result_type.h>
#include <c10/core/impl/COW.h>
#include <c10/util/irange.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/chunks.h"
#include "kernels/cpu/blocks.h"
#include "kernels/cpu/cut.h"
#include "kernels/cpu/elements.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kept.h"
#include "kernels/math.h"
#include "kernels/memory_spans.h"
#include "kernels/norm.h"

namespace pyparam {

void check_order(const char* op, double p) {
  TORCH_CHECK_VALUE(p >= 0 || p == -std::numeric_limits<double>::infinity(), op,
                    ": the order of the norm must be 0, positive, inf or -inf, got ", p);
}

at::ScalarType norm_dtype(at::TensorList tensors) {
  at::ScalarType dtype = at::kFloat;
  for (const auto& tensor : tensors) {
    if (c10::toRealValueType(tensor.scalar_type()) == at::kDouble) dtype = at::kDouble;
  }
  return dtype;
}

void check_clippable(at::TensorList grads) {
  const bool inference = c10::InferenceMode::is_enabled();
  for (const auto i : c10::irange(grads.size())) {
    const at::ScalarType dtype = grads[i].scalar_type();
    const at::ScalarType part = c10::toRealValueType(dtype);
    TORCH_CHECK_TYPE(
        part == at::kFloat || part == at::kDouble || part == at::kHalf || part == at::kBFloat16,
        "clip_grad_norm_: tensors[", i, "] has dtype ", dtype,
        "; expected float16, bfloat16, float32, float64 or a complex dtype");
    TORCH_CHECK_VALUE(
        at::has_internal_overlap(grads[i]) != at::MemOverlap::Yes, "clip_grad_norm_: tensors[", i,
        "] is expanded: several of its elements are one memory location; clone() it first");
    TORCH_CHECK_VALUE(inference || !grads[i].is_inference(), "clip_grad_norm_: tensors[", i,
                      "] is an inference tensor; outside inference mode it cannot be written");
  }
}

void refuse_nonfinite_norm(double norm_type, int64_t first) {
  const std::string cause =
      first < 0 ? "no gradient has a NaN or an infinity, but their norm overflows"
                : "the first gradient with a NaN or an infinity is that of tensors[" +
                      std::to_string(first) + "]";
  // As Python writes a float.
  std::string order = c10::str(norm_type);
  if (order.find_first_not_of("-0123456789") == std::string::npos) order += ".0";
  TORCH_CHECK(false, "The total norm of order ", order,
              " for gradients from `parameters` is non-finite, so it cannot be clipped: ", cause,
              ". To disable this error and scale the gradients by the non-finite norm anyway, set "
              "`error_if_nonfinite=False`");
}

namespace cpu {

namespace {

constexpr int64_t kChunk = 16 * kBlock;
constexpr int64_t kGroup = 4 * kChunk;
constexpr int64_t kAtOnce = 4;  // tensors that are read, and as many added up, in turn
constexpr double kInf = std::numeric_limits<double>::infinity();

template <typename T>
int64_t count_nonzero(const T* x, int64_t n) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += magnitude_bits(x[i]) != 0;
  return count;
}

template <typename T>
NormPart sum_powers(const T* x, int64_t n, double p, double least, double largest) {
  if (std::isnan(least) || largest == 0 || std::isinf(largest)) return {largest};
  double sum = 0;
  for (int64_t i = 0; i < n; ++i)
    sum += std::pow(std::fabs(static_cast<double>(x[i])) / largest, p);
  return {sum, largest};
}

NormPart block_norm(const BlockValues& block, int64_t n, double p, const LaneKernels& lanes) {
  const float* f = block.floats;
  const double* d = block.doubles;
  if (p == 0)
    return {static_cast<double>(f != nullptr ? count_nonzero(f, n) : count_nonzero(d, n))};
  if (p == 1) return {f != nullptr ? lanes.sum_abs_float(f, n) : lanes.sum_abs_double(d, n)};
  if (p == 2 && f != nullptr) return {lanes.squares_float(f, n)};
  if (p == 2) {
    const double sum = lanes.squares_double(d, n, 1);
    if (is_safe_square(sum)) return {sum};
  }
  double least = 0;
  double largest = 0;
  f != nullptr ? lanes.extremes_float(f, n, &least, &largest)
               : lanes.extremes_double(d, n, &least, &largest);
  if (p == kInf) return {largest};
  if (p == -kInf) return {least};
  if (p != 2)
    return f != nullptr ? sum_powers(f, n, p, least, largest) : sum_powers(d, n, p, least, largest);
  if (largest == 0 || !(largest < kInf)) return {largest};
  const auto exponent = static_cast<int>(scaling_exponent(largest));
  return {lanes.squares_double(d, n, power_of_two(-exponent)), power_of_two(exponent)};
}

// The absolute values of complex numbers, in place of their parts.
BlockValues magnitudes(const BlockValues& parts, int64_t n, double* out) {
  for (int64_t i = 0; i < n / 2; ++i) {
    if (parts.floats != nullptr) {
      const double re = parts.floats[2 * i];
      const double im = parts.floats[2 * i + 1];
      out[i] = std::hypot(re, im);
    } else {
      out[i] = std::hypot(parts.doubles[2 * i], parts.doubles[2 * i + 1]);
    }
  }
  BlockValues block;
  block.doubles = out;
  return block;
}

Scratch& scratch() {
  static thread_local const std::unique_ptr<Scratch> memory = std::make_unique<Scratch>();
  return *memory;
}

NormPart chunk_norm(const ElementList& list, const Chunk& chunk, double p, const LaneKernels& lanes,
                    Scratch& memory) {
  NormPart out;
  for (int64_t done = 0; done < chunk.length; done += kBlock) {
    int64_t n = std::min(kBlock, chunk.length - done);
    BlockValues block = read_block(list, chunk.tensor, chunk.begin + done, n, lanes, memory);
    alignas(64) double absolute[kBlock / 2];
    if (p != 2 && list[chunk.tensor].is_complex) {
      block = magnitudes(block, n, absolute);
      n /= 2;
    }
    const NormPart part = block_norm(block, n, p, lanes);
    out = done == 0 ? part : combine_norms(out, part, p);
  }
  return out;
}

// What each piece of each tensor adds to the norm.
struct NormParts {
  // Of a tensor whose squares are added up as a whole that sum. Others are not set.
  std::vector<double, Kept<double>> sums;
  // The others, ascending, and the parts of each: of others[k] those at [first[k], first[k + 1]).
  std::vector<int64_t> others;
  std::vector<int64_t> first;
  std::vector<NormPart> parts;
  bool of_doubles = false;  // whether some tensor is of float64

  size_t tensors() const { return sums.size(); }
  // Calls fn(t, part) in the order of the list.
  template <typename Fn>
  PYPARAM_INLINE void for_each(const Fn& fn) const {
    size_t t = 0;
    const auto take_sums = [&](size_t end) __attribute__((always_inline)) {
      for (; t < end; ++t) fn(t, NormPart{sums[t]});
    };
    for (size_t k = 0; k < others.size(); ++k) {
      take_sums(static_cast<size_t>(others[k]));
      for (int64_t c = first[k]; c < first[k + 1]; ++c) fn(t, parts[static_cast<size_t>(c)]);
      ++t;
    }
    take_sums(sums.size());
  }
};

// `reader`, unless null, reads the list meanwhile; none where it cannot.
std::optional<NormParts> norm_parts(const ElementList& list, OrdinaryReader* reader, double p) {
  // Of most tensors, where there are many: nothing is widened, scaled or cut.
  const auto whole = [p](const Elements& e) {
    return p == 2 && e.few && e.format == Format::kFloat;
  };
  NormParts out;
  out.sums.resize(list.size());
  const LaneKernels& lanes = lane_kernels();
  const int64_t blocks = RowBlock::count(list);
  std::vector<ListRows> found(static_cast<size_t>(blocks));
  std::atomic<bool> readable{true};
  for_each_task_by_worker(blocks, Pass::kReads, [&](int64_t) {
    return [&](int64_t task) {
      const RowBlock block(list, task);
      BlockAhead ahead(list, reader, block, whole, found[static_cast<size_t>(task)]);
      for (int64_t t = block.begin; t < block.end;) {
        const int64_t end = std::min(t + kAtOnce, block.end);
        if (!ahead.reach(end)) {
          readable = false;
          return;
        }
        if (p == 2) lanes.squares_few(list.data(), t, end, out.sums.data());
        t = end;
      }
    };
  });
  if (!readable) return std::nullopt;
  ListRows rows;
  for (const ListRows& of_block : found) rows.append(of_block);
  const Cut cut(list, std::move(rows.others), kChunk, kGroup);
  out.parts.resize(cut.plan.chunks.size());
  for_each_task_by_worker(cut.tasks(), Pass::kReads, [&](int64_t) {
    Scratch& memory = scratch();
    return [&](int64_t task) {
      cut.for_each_piece(list, task, [&](const Chunk& piece, int64_t c, size_t) {
        out.parts[static_cast<size_t>(c)] = chunk_norm(list, piece, p, lanes, memory);
      });
    };
  });
  for (const int64_t row : cut.rows) out.of_doubles |= list[row].format == Format::kDouble;
  out.others = cut.rows;
  out.first = cut.plan.first;
  return out;
}

// The norm of all values; `of_norms` takes that of the tensors' norms, which differs for order 0
// alone.
double norm_of_parts(const NormParts& found, double p, bool of_norms) {
  if (p == 0 && of_norms) {
    int64_t nonzero = 0;
    size_t counted = found.tensors();  // the last that was
    found.for_each([&](size_t t, const NormPart& part) {
      if (part.sum == 0 || t == counted) return;
      counted = t;
      ++nonzero;
    });
    return static_cast<double>(nonzero);
  }
  NormPart total;
  size_t parts = 0;
  found.for_each([&](size_t, const NormPart& part) __attribute__((always_inline)) {
    // As combine_norms does, but for which NaN comes of one.
    if (parts++ == 0) {
      total = part;
    } else if (p == 2 && total.scale == 1 && part.scale == 1) {
      total.sum += part.sum;
    } else {
      total = combine_norms(total, part, p);
    }
  });
  if (parts == 0) return norm_of_nothing(p, found.tensors() > 0);
  if (p == 2 && parts > 1 && is_nan(total.sum)) return not_a_number();
  return norm_of(total, p);
}

at::Tensor scalar_tensor(double value, at::ScalarType dtype) {
  const ExactFloats mode;
  at::Tensor out = at::empty({}, at::TensorOptions().dtype(dtype));
  if (dtype == at::kDouble) {
    *out.mutable_data_ptr<double>() = value;
  } else {
    *out.mutable_data_ptr<float>() = static_cast<float>(value);
  }
  return out;
}

// `reader`, unless null, reads the list meanwhile; none where it cannot.
std::optional<at::Tensor> norm_of_list(const ElementList& list, OrdinaryReader* reader, double p,
                                       bool of_norms) {
  const ExactFloats mode;  // for what is combined here
  const auto found = norm_parts(list, reader, p);
  if (!found.has_value()) return std::nullopt;
  return scalar_tensor(norm_of_parts(*found, p, of_norms),
                       found->of_doubles ? at::kDouble : at::kFloat);
}

at::Tensor total_norm_op(at::TensorList tensors, double p) {
  check_order("total_norm", p);
  return total_norm("total_norm", tensors, p, false);
}

at::Tensor norm_meta(at::TensorList tensors) {
  const at::Device device = tensors.empty() ? at::Device(at::kMeta) : tensors[0].device();
  return at::empty({}, at::TensorOptions().dtype(norm_dtype(tensors)).device(device));
}
at::Tensor total_norm_meta(at::TensorList tensors, double p) {
  check_order("total_norm", p);
  return norm_meta(tensors);
}

template <typename T>
void scale(void* data, int64_t n, float by) {
  auto* x = static_cast<T*>(data);
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<T>(static_cast<float>(x[i]) * by);
}

void scale_chunk(const Elements& e, const Chunk& chunk, double by) {
  void* data = const_cast<char*>(e.data) + chunk.begin * value_size(e.format);
  switch (e.format) {
    case Format::kFloat:
      return scale<float>(data, chunk.length, static_cast<float>(by));
    case Format::kHalf:
      return scale<c10::Half>(data, chunk.length, static_cast<float>(by));
    case Format::kBFloat16:
      return scale<c10::BFloat16>(data, chunk.length, static_cast<float>(by));
    default: {
      auto* x = static_cast<double*>(data);
      for (int64_t i = 0; i < chunk.length; ++i) x[i] *= by;
    }
  }
}

// Multiplies every tensor by the coefficient, in place. No two of them share memory.
void scale_apart(at::TensorList grads, const ElementList& list, double by) {
  std::vector<int64_t> numels = list.numels();
  std::vector<size_t> others;
  for (const auto i : c10::irange(grads.size())) {
    if (list[i].strided >= 0 || grads[i].is_conj() || grads[i].is_neg()) {
      others.push_back(i);
      numels[i] = 0;
    } else {
      if (!grads[i].is_inference()) grads[i].unsafeGetTensorImpl()->bump_version();
    }
  }
  const ChunkPlan plan = plan_chunks(numels, kChunk, kGroup);
  for_each_chunk(plan, Pass::kWrites,
                 [&](const Chunk& chunk, int64_t) { scale_chunk(list[chunk.tensor], chunk, by); });
  const at::NoGradGuard no_grad;
  for (const size_t i : others) {
    at::Tensor grad = grads[i];
    grad.mul_(by);
  }
}

void scale_list(at::TensorList grads, const ElementList& list, double by) {
  const ExactFloats mode;
  const auto once = each_byte_once("clip_grad_norm_", grads);
  if (!once.has_value()) return scale_apart(grads, list, by);
  scale_apart(*once, ElementList("clip_grad_norm_", *once), by);
  for (const at::Tensor& grad : grads) {
    if (!grad.is_inference()) grad.unsafeGetTensorImpl()->bump_version();
  }
}

// Gives lazy clones their own memory, before anyone takes an address to write to.
void own_memory(at::TensorList grads) {
  for (const at::Tensor& grad : grads) {
    if (!grad.defined() || !grad.is_cpu() || !grad.has_storage()) continue;
    if (c10::impl::cow::is_cow_data_ptr(
            grad.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl()->data_ptr()))
      grad.mutable_data_ptr();
  }
}

double value_of(const at::Tensor& norm) {
  return norm.scalar_type() == at::kDouble ? *norm.const_data_ptr<double>()
                                           : *norm.const_data_ptr<float>();
}

void scale_list_to(at::TensorList grads, const ElementList& list, const at::Tensor& norm,
                   double max_norm) {
  const double coefficient = norm.scalar_type() == at::kDouble
                                 ? clip_coefficient<double>(value_of(norm), max_norm)
                                 : clip_coefficient<float>(value_of(norm), max_norm);
  // Multiplying by one would change nothing.
  if (coefficient != 1) scale_list(grads, list, coefficient);
}

// The first tensor with a NaN or an infinity, -1 if none has one.
int64_t first_nonfinite(const ElementList& list) {
  for (const auto t : c10::irange(list.size())) {
    const Chunk all{static_cast<int64_t>(t), 0, list[t].values};
    if (list[t].values > 0 &&
        !std::isfinite(chunk_norm(list, all, kInf, lane_kernels(), scratch()).sum)) {
      return static_cast<int64_t>(t);
    }
  }
  return -1;
}

at::Tensor clip_grad_norm_(at::TensorList grads, double max_norm, double norm_type,
                           bool error_if_nonfinite) {
  check_order("clip_grad_norm_", norm_type);
  const ExactFloats mode;
  own_memory(grads);
  const ElementList list("clip_grad_norm_", grads);
  check_clippable(grads);
  const at::Tensor out = norm_of_list(list, nullptr, norm_type, true).value();
  const double norm = value_of(out);
  if (error_if_nonfinite && !std::isfinite(norm))
    refuse_nonfinite_norm(norm_type, first_nonfinite(list));
  scale_list_to(grads, list, out, max_norm);
  return out;
}

at::Tensor clip_grad_norm_meta(at::TensorList grads, double, double norm_type, bool) {
  check_order("clip_grad_norm_", norm_type);
  return norm_meta(grads);
}

}  // namespace

at::Tensor total_norm(const char* op, at::TensorList tensors, double p, bool of_norms) {
  return norm_of_list(ElementList(op, tensors), nullptr, p, of_norms).value();
}

std::optional<at::Tensor> norm_of_ordinary(at::TensorList tensors, double p) {
  check_order("total_norm", p);
  OrdinaryReader reader(tensors, {});
  return norm_of_list(reader.list(), &reader, p, false);
}

std::vector<NormPart> tensor_norms(const char* op, at::TensorList tensors, double p) {
  const ExactFloats mode;
  const ElementList list(op, tensors);
  const NormParts found = norm_parts(list, nullptr, p).value();
  std::vector<NormPart> out(list.size(), NormPart{norm_of_nothing(p, true)});
  size_t last = list.size();
  found.for_each([&](size_t t, const NormPart& part) {
    out[t] = t == last ? combine_norms(out[t], part, p) : part;
    last = t;
  });
  return out;
}

void clip_to_norm(at::TensorList grads, const at::Tensor& norm, double max_norm) {
  own_memory(grads);
  scale_list_to(grads, ElementList("clip_grad_norm_", grads), norm, max_norm);
}

TORCH_LIBRARY_IMPL(pyparam, CompositeExplicitAutograd, m) {
  m.impl("total_norm", &total_norm_op);
  m.impl("clip_grad_norm_", &clip_grad_norm_);
}
TORCH_LIBRARY_IMPL(pyparam, Meta, m) {
  m.impl("total_norm", &total_norm_meta);
  m.impl("clip_grad_norm_", &clip_grad_norm_meta);
}
TORCH_LIBRARY_IMPL(pyparam, Autograd, m) {
  m.impl("total_norm", torch::CppFunction::makeFallthrough());
  m.impl("clip_grad_norm_", torch::CppFunction::makeFallthrough());
}
// A norm does not change with a conjugate or a sign, and scaling by a real number goes through
// both: lazy ones are taken as they are, which PyTorch's own fallback refuses in a list that is
// written.
TORCH_LIBRARY_IMPL(pyparam, Conjugate, m) {
  m.impl("clip_grad_norm_", torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(pyparam, Negative, m) {
  m.impl("clip_grad_norm_", torch::CppFunction::makeFallthrough());
}

}  // namespace cpu
}  // namespace pyparam
