#include "kernels/fill.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <exception>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "kernels/alike.h"
#include "kernels/cpu/isa.h"
#include "kernels/extent.h"

namespace pyparam {
void check_kinds(at::TensorList tensors, at::IntArrayRef kinds) {
  TORCH_CHECK_VALUE(kinds.size() == tensors.size(), "fill_: ", tensors.size(), " tensors, but ",
                    kinds.size(), " kinds");
}

namespace {

using random::Kind;

constexpr int64_t kAhead = 8;  // tensors to fetch into the cache ahead of the one at hand

std::string place(size_t i) { return "fill_: tensors[" + std::to_string(i) + "]"; }

void check_columns(at::TensorList tensors, const FillColumns& c) {
  const size_t n = tensors.size();
  check_kinds(tensors, c.kinds);
  for (size_t i = 0; i < n; ++i) {
    TORCH_CHECK_VALUE(c.kinds[i] >= -1 && c.kinds[i] < random::kKinds, place(i), ": unknown kind ",
                      c.kinds[i]);
  }
  TORCH_CHECK_VALUE(c.parameters.size() == n * random::kParameters, "fill_: ", n, " tensors, so ",
                    n * random::kParameters, " parameters expected, got ", c.parameters.size());
  TORCH_CHECK_VALUE(c.streams.size() == n, "fill_: ", n, " tensors, but ", c.streams.size(),
                    " streams");
  TORCH_CHECK_VALUE(c.offsets.empty() || c.offsets.size() == n, "fill_: ", n, " tensors, but ",
                    c.offsets.size(), " offsets");
  if (c.strides.empty()) return;
  size_t dims = 0;
  for (const at::Tensor& t : tensors) dims += static_cast<size_t>(t.dim());
  TORCH_CHECK_VALUE(c.strides.size() == dims, "fill_: the tensors have ", dims,
                    " dimensions in all, but there are ", c.strides.size(), " strides");
}

// How random values are stored in a dtype; nothing for one that constants alone can be written to.
std::optional<random::Stored> stored_as(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return random::Stored::kFloat32;
    case at::kDouble:
      return random::Stored::kFloat64;
    case at::kHalf:
      return random::Stored::kFloat16;
    case at::kBFloat16:
      return random::Stored::kBFloat16;
    default:
      return std::nullopt;
  }
}

void check_uniform(size_t i, const double* p, at::ScalarType dtype,
                   const random::StoredFormat& format) {
  const double from = p[0], to = p[1];
  TORCH_CHECK_VALUE(std::isfinite(from) && std::isfinite(to) && from <= to, place(i),
                    ": a uniform needs finite bounds with a <= b; got a=", from, ", b=", to);
  TORCH_CHECK_VALUE(random::Range({from, to}).within(format.largest) && to - from <= format.largest,
                    place(i), ": a uniform needs bounds and b - a within ", python_name(dtype),
                    ", whose largest number is ", format.largest, "; got a=", from, ", b=", to);
  TORCH_CHECK_VALUE(from == to || !random::uniform_range(format, from, to).empty(), place(i), ": ",
                    python_name(dtype), " has no number in [a, b); got a=", from, ", b=", to);
}

void check_normal(size_t i, const double* p) {
  TORCH_CHECK_VALUE(std::isfinite(p[0]) && std::isfinite(p[1]) && p[1] >= 0, place(i),
                    ": a normal needs a finite mean and std >= 0; got mean=", p[0], ", std=", p[1]);
}

void check_reach(size_t i, const random::Range& reach, const double* p, at::ScalarType dtype,
                 const random::StoredFormat& format) {
  TORCH_CHECK_VALUE(reach.within(format.largest), place(i), ": a normal with mean=", p[0],
                    " and std=", p[1], " reaches beyond ", python_name(dtype),
                    ", whose largest number is ", format.largest);
}

// Whether a tensor of this dtype can hold whatever may be drawn.
void check_parameters(size_t i, Kind kind, const double* p, at::ScalarType dtype) {
  const random::StoredFormat format =
      random::format_of(stored_as(dtype).value_or(random::Stored::kFloat64));
  switch (kind) {
    case Kind::kKeep:
    case Kind::kConstant:
      return;
    case Kind::kUniform:
      return check_uniform(i, p, dtype, format);
    case Kind::kNormal:
      check_normal(i, p);
      return check_reach(i, random::normal_reach(format, p[0], p[1]), p, dtype, format);
    case Kind::kTruncated:
      check_normal(i, p);
      TORCH_CHECK_VALUE(p[2] <= p[3] && p[2] != INFINITY && p[3] != -INFINITY, place(i),
                        ": a truncated normal needs bounds with a <= b; got a=", p[2],
                        ", b=", p[3]);
      check_reach(i, random::truncated_reach(format, p[0], p[1], p[2], p[3]), p, dtype, format);
      TORCH_CHECK_VALUE(p[2] == p[3] || !random::closed_range(format, p[2], p[3]).empty(), place(i),
                        ": ", python_name(dtype), " has no number in [a, b]; got a=", p[2],
                        ", b=", p[3]);
      return;
  }
}

void check_tensor(size_t i, const at::Tensor& t, Kind kind) {
  TORCH_CHECK_VALUE(t.defined(), place(i), " is undefined");
  TORCH_CHECK_TYPE(t.layout() == at::kStrided && !t.is_nested(), place(i), " is ",
                   t.is_nested() ? "nested" : "sparse", " (layout ", t.layout(),
                   "); expected a strided tensor");
  TORCH_CHECK_TYPE(!t.is_quantized(), place(i), " is quantized (", t.scalar_type(),
                   "); expected an ordinary tensor");
  TORCH_CHECK_TYPE(!t.is_conj() && !t.is_neg(), place(i), " is a lazy ",
                   t.is_conj() ? "conjugate" : "negative",
                   "; expected a tensor that holds its own values");
  require_extent(t, [&] { return place(i); });
  const at::ScalarType type = t.scalar_type();
  TORCH_CHECK_TYPE(kind == Kind::kConstant || stored_as(type).has_value(), place(i), " has dtype ",
                   type, "; random fills write float32, float64, float16 and bfloat16");
  TORCH_CHECK_VALUE(t.numel() <= 1 || distinct_elements(t), place(i),
                    " has elements that share memory (size ", t.sizes(), ", stride ", t.strides(),
                    "); clone() it before filling");
}

Layout merged(int64_t offset, const at::Tensor& t, at::IntArrayRef strides) {
  Layout layout;
  layout.offset = offset;
  for (int64_t d = 0; d < t.dim(); ++d) {
    const Extent next = {t.size(d), strides[d]};
    if (next.size == 1) continue;
    if (!layout.dims.empty() && layout.dims.back().stride == next.size * next.stride) {
      layout.dims.back() = {layout.dims.back().size * next.size, next.stride};
    } else {
      layout.dims.push_back(next);
    }
  }
  return layout;
}

Layout whole_layout(size_t i, const at::Tensor& t, int64_t offset, at::IntArrayRef strides) {
  if (t.numel() == 0) return {};
  TORCH_CHECK_VALUE(offset >= 0, place(i), ": the offset in the whole is negative (", offset, ")");
  if (strides.empty()) {
    int64_t end = 0;
    TORCH_CHECK_VALUE(!__builtin_add_overflow(offset, t.numel(), &end), place(i),
                      ": the whole must have fewer than 2^63 elements; got the offset ", offset,
                      " for ", t.numel(), " elements");
    Layout layout;
    layout.offset = offset;
    if (t.numel() > 1) layout.dims.push_back({t.numel(), 1});
    return layout;
  }
  int64_t end = 1;  // one after the last element
  bool fits = !__builtin_add_overflow(offset, end, &end);
  for (int64_t d = 0; d < t.dim(); ++d) {
    int64_t span = 0;
    fits = fits && strides[d] >= 0 && !__builtin_mul_overflow(t.size(d) - 1, strides[d], &span) &&
           !__builtin_add_overflow(end, span, &end);
  }
  TORCH_CHECK_VALUE(fits, place(i),
                    ": strides of the whole must be non-negative and stay below 2^63; got ",
                    strides, " from the offset ", offset);
  return merged(offset, t, strides);
}

// Checks tensor i and lays it out. Safe to run for different tensors at once.
void prepare_row(FillRow& row, size_t i, const at::Tensor& t, const FillColumns& columns,
                 size_t first_dim) {
  check_tensor(i, t, static_cast<Kind>(columns.kinds[i]));
  at::IntArrayRef strides;
  if (!columns.strides.empty())
    strides = columns.strides.slice(first_dim, static_cast<size_t>(t.dim()));
  row.whole = whole_layout(i, t, columns.offsets.empty() ? 0 : columns.offsets[i], strides);
  row.memory = merged(0, t, t.strides());
  row.key = {static_cast<uint64_t>(columns.seed), static_cast<uint64_t>(columns.streams[i])};
}

// What makes two draws one: kind, parameters by their bits (a NaN equals itself, and 0.0 is not
// -0.0), and how they are stored.
using DrawKey = std::array<uint64_t, random::kParameters + 2>;

DrawKey draw_key(int64_t kind, const double* p, at::ScalarType dtype) {
  DrawKey key{static_cast<uint64_t>(kind), static_cast<uint64_t>(dtype)};
  std::memcpy(key.data() + 2, p, random::kParameters * sizeof(*p));
  return key;
}

// The draw of each row. Tensors filled alike share one, and neighbours often are.
void prepare_draws(Fill& fill, at::TensorList tensors, const FillColumns& columns) {
  fill.draws.emplace_back();  // of tensors left alone
  std::map<DrawKey, size_t> known;
  DrawKey last{};
  size_t last_draw = 0;
  for (size_t i = 0; i < fill.rows.size(); ++i) {
    const auto kind = static_cast<Kind>(columns.kinds[i]);
    if (kind == Kind::kKeep) continue;
    const double* p = columns.parameters.data() + i * random::kParameters;
    const at::ScalarType dtype = tensors[i].scalar_type();
    const DrawKey key = draw_key(columns.kinds[i], p, dtype);
    if (last_draw == 0 || key != last) {
      const auto [entry, fresh] = known.try_emplace(key, fill.draws.size());
      if (fresh) {
        check_parameters(i, kind, p, dtype);
        fill.draws.push_back(
            random::prepared(kind, p, stored_as(dtype).value_or(random::Stored::kFloat64)));
      }
      last = key;
      last_draw = entry->second;
    }
    fill.rows[i].draw = last_draw;
  }
}

// A constant that a dtype cannot hold is refused before anything is written. Torch's own fill_ says
// which; of one element it says nothing, and makes an infinity.
void check_constants(at::TensorList tensors, const Fill& fill) {
  std::set<std::pair<size_t, at::ScalarType>> known;
  std::pair<size_t, at::ScalarType> last{0,
                                         at::ScalarType::Undefined};  // neighbours are often alike
  for (size_t i = 0; i < fill.rows.size(); ++i) {
    if (fill.draw(i).map != random::Map::kConstant || tensors[i].numel() == 0) continue;
    const at::ScalarType dtype = tensors[i].scalar_type();
    const std::pair<size_t, at::ScalarType> pair{fill.rows[i].draw, dtype};
    if (pair == last || !known.insert(pair).second) continue;
    last = pair;
    const double value = fill.draw(i).affine64.shift;
    bool held = true;
    try {
      const at::AutoDispatchBelowAutograd guard;
      at::empty({2}, dtype).fill_(value);
    } catch (const std::exception&) {
      held = false;
    }
    TORCH_CHECK_VALUE(held, place(i), " has dtype ", dtype, ", which cannot hold ", value);
  }
}

}  // namespace

Fill prepare_fill(at::TensorList tensors, const FillColumns& columns) {
  const cpu::ExactFloats mode;
  check_columns(tensors, columns);
  Fill fill;
  fill.rows.resize(tensors.size());
  std::vector<size_t> first_dim(columns.strides.empty() ? 0 : tensors.size());
  for (size_t i = 1; i < first_dim.size(); ++i)
    first_dim[i] = first_dim[i - 1] + static_cast<size_t>(tensors[i - 1].dim());
  const auto prepare = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) __builtin_prefetch(tensors[i + kAhead].unsafeGetTensorImpl());
      if (columns.kinds[i] >= 0)
        prepare_row(fill.rows[i], i, tensors[i], columns, first_dim.empty() ? 0 : first_dim[i]);
    }
  };
  const auto count = static_cast<int64_t>(tensors.size());
  try {
    at::parallel_for(0, count, 1 << 16, prepare);
  } catch (const c10::Error&) {
    prepare(0, count);  // again, in order, so that the first wrong tensor is the one named
    throw;
  }
  prepare_draws(fill, tensors, columns);
  check_constants(tensors, fill);
  return fill;
}

}  // namespace pyparam
